"""Metrics: all that operators are promised is on the page, from the first scrape."""

from __future__ import annotations

from infra.metrics import Metrics


def test_the_page_has_what_is_promised() -> None:
    metrics = Metrics()
    metrics.events_rejected.labels("json").inc()
    metrics.lag.labels("0").set(7)
    metrics.stage.labels("absorb").observe(0.001)
    metrics.batch_size.labels("events").observe(3)
    metrics.freshness.observe(0.007)
    page = metrics.render().decode()
    for line in ("streamrec_events_absorbed_total 0.0", 'streamrec_events_rejected_total{reason="json"} 1.0',
                 "streamrec_events_duplicate_total 0.0", "streamrec_events_rerouted_total 0.0",
                 "streamrec_lists_published_total 0.0", 'streamrec_freshness_seconds_bucket{le="0.006"} 0.0',
                 'streamrec_freshness_seconds_bucket{le="0.008"} 1.0', 'streamrec_lag{partition="0"} 7.0', "streamrec_users_dirty 0.0",
                 "streamrec_rows_loaded_total 0.0", "streamrec_rows_evicted_total 0.0",
                 'streamrec_batch_size_count{topic="events"} 1.0', 'streamrec_stage_seconds_count{stage="absorb"} 1.0',
                 'streamrec_waiting{server="kafka"} 0.0', 'streamrec_waiting{server="redis"} 0.0',
                 "streamrec_fence_losses_total 0.0", "streamrec_items_folded_total 0.0"):
        assert line in page, line


def test_workers_do_not_share_and_a_lost_partition_has_no_lag() -> None:
    one, other = Metrics(), Metrics()
    one.events_absorbed.inc(5)
    one.lag.labels("3").set(1)
    one.forget_partition(3)
    one.forget_partition(4)
    assert "streamrec_events_absorbed_total 5.0" in one.render().decode()
    assert "streamrec_events_absorbed_total 0.0" in other.render().decode()
    assert 'partition="3"' not in one.render().decode()

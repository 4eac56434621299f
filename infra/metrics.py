"""What a worker counts, in the form that Prometheus reads; served at /metrics of the worker's own port.

Pure definitions: each worker makes one `Metrics`, its parts set and add, `render()` gives the text. No global registry, so
that tests and the lockstep engine can make as many as they like.
"""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Fine around the targets (p50 10 ms, p99 50 ms), coarse where only "too late" is to be seen.
FRESHNESS_BUCKETS_S = (0.001, 0.002, 0.003, 0.004, 0.005, 0.006, 0.008, 0.010, 0.012, 0.015, 0.020, 0.025, 0.030, 0.040,
                       0.050, 0.075, 0.100, 0.150, 0.250, 0.500, 1.0, 2.5, 5.0, 10.0)
# What is asked of freshness in operation: 99 of 100 lists within this. One of the bounds above, so that it can be counted.
OBJECTIVE_S = 0.100
OBJECTIVE_SHARE = 0.99
STAGE_BUCKETS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.010, 0.025, 0.050, 0.100, 0.250, 1.0)
BATCH_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000)
SERVERS = ("kafka", "redis")


class Metrics:
    """All metrics of one worker; the attributes are prometheus_client objects: `.inc()`, `.set()`, `.observe()`.

    Partition labels are partition numbers of `events` (and of `interactions`, which has the same); `server` is kafka or redis.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        one: dict[str, Any] = {"namespace": "streamrec", "registry": self.registry}

        ProcessCollector(registry=self.registry)  # memory and processor time of the worker

        # users' side
        self.events_absorbed = Counter("events_absorbed", "Valid events applied to user rows", **one)
        self.events_rejected = Counter("events_rejected", "Events sent to the dead-letter topic", ["reason"], **one)
        self.events_duplicate = Counter("events_duplicate", "Events known by event_id, or already absorbed", **one)
        self.events_rerouted = Counter("events_rerouted", "Events from a wrong partition, produced again to the right one", **one)
        self.events_erased = Counter("events_erased", "Events passed over because their user was erased behind them", **one)
        self.users_dirty = Gauge("users_dirty", "Users whose list is older than their last event", **one)
        self.oldest_dirty = Gauge("oldest_dirty_seconds", "Age of the user that has been dirty longest", **one)
        self.rows = Gauge("rows", "User rows in memory", **one)
        self.rows_loaded = Counter("rows_loaded", "User rows read from Redis", **one)
        self.rows_evicted = Counter("rows_evicted", "User rows dropped from memory to make room", **one)

        # lists
        self.lists_published = Counter("lists_published", "Users' lists written to Redis", **one)
        self.freshness = Histogram("freshness_seconds", "From an event's append to Kafka to its user's list in Redis",
                                   buckets=FRESHNESS_BUCKETS_S, **one)

        # items' side
        self.items_folded = Counter("items_folded", "Touches and follows applied to item rows", **one)
        self.items = Gauge("items", "Item rows in memory", **one)
        self.lessons_learned = Counter("lessons_learned", "Events that the online model has learned from", **one)
        self.hit_rate = Gauge("hit_rate", "Share of baskets with an item among the first ten of the list before them", **one)
        self.drifts = Counter("drifts", "Times that the hit rate has fallen for good", **one)
        self.lessons_lag = Gauge("lessons_lag", "Messages of lessons not yet learned from", **one)

        # how good lists are, of baskets that were asked about before they were absorbed; `of`: whose first ten
        self.baskets = Counter("baskets", "Baskets by which lists were judged before they were absorbed", **one)
        self.basket_hits = Counter("basket_hits", "Of these, baskets with an item among the first ten beforehand, by whose ten",
                                   ["of"], **one)

        # logs that every worker reads whole: interactions and lessons
        self.messages_skipped = Counter(
            "messages_skipped", "Messages passed over: foreign (no worker has written them), or gone before they were read",
            ["topic", "reason"], **one)
        self.logs_anew = Counter("logs_anew", "Times that a topic was found deleted and made anew", ["topic"], **one)

        # releases of the trained model
        self.release_swaps = Counter("release_swaps", "Times that lists began to be made with another release, or without", **one)
        self.releases_refused = Counter("releases_refused", "Announced releases that are damaged, missing or do not fit", **one)
        self.release_made = Gauge("release_made_timestamp_seconds", "When the release that lists are made with was made; 0: none is served",
                                  **one)

        # flow
        self.lag = Gauge("lag", "Events not yet absorbed, per owned partition", ["partition"], **one)
        self.batch_size = Histogram("batch_size", "Records in one batch of a partition", ["topic"], buckets=BATCH_BUCKETS, **one)
        self.stage = Histogram("stage_seconds", "Time one batch spends in a stage", ["stage"], buckets=STAGE_BUCKETS_S, **one)
        self.waiting = Gauge("waiting", "1 while the worker waits for this server", ["server"], **one)
        self.redis_memory = Gauge("redis_memory_bytes", "Memory that Redis uses", **one)
        self.redis_memory_limit = Gauge("redis_memory_limit_bytes", "Memory that Redis may use (maxmemory, else the machine's)", **one)
        self.fence_losses = Counter("fence_losses", "Writes refused because the partition has another owner or Redis another state",
                                    **one)
        self.partitions_owned = Gauge("partitions_owned", "Partitions of events this worker owns", **one)
        self.generation = Gauge("generation", "1 for the generation of state that this worker serves, where it is live; 0 for a shadow", ["generation"], **one)
        self.ready = Gauge("ready", "1 once item rows and attributes are loaded", **one)
        for server in SERVERS:  # so that a dashboard sees a 0, not a gap
            self.waiting.labels(server).set(0)

    def render(self) -> bytes:
        """The page that Prometheus reads (`CONTENT_TYPE`)."""
        return generate_latest(self.registry)

    def forget_partition(self, partition: int) -> None:
        """A partition that went to another worker has no lag here."""
        try:
            self.lag.remove(str(partition))
        except KeyError:  # never set
            pass

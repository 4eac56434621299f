"""The sign of life: what it says follows the schema, and its figures are those of the last minute."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest
from jsonschema import Draft202012Validator

from infra.settings import Settings
from streams import pulse
from streams.health import Health
from streams.pulse import Pulse
from streams.state import State
from streams.store import Store

SCHEMA = json.loads((Path(__file__).parent.parent.parent / "docs" / "schemas" / "worker.json").read_text())


@pytest.fixture
def state() -> State:
    return State(Settings(partitions=2, max_users=64))


def test_the_sign_follows_its_schema_and_the_schema_names_all_of_it(state: State) -> None:
    for said in (Health(state, cast(Store, None), tuple).describe(), *SCHEMA["examples"]):
        Draft202012Validator(SCHEMA).validate(json.loads(json.dumps(said)))
        assert said.keys() == SCHEMA["properties"].keys()


def test_recent_is_what_lies_within_the_last_minute(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 1_000.0
    monkeypatch.setattr(pulse.time, "monotonic", lambda: now_s)
    one = Pulse(state)
    assert cast(Any, one.describe()["recent"]) == {"seconds": 0.0, "events": 0, "rejected": 0, "lists": 0, "late_s": 0, "freshness": {}}
    for second in range(200):
        now_s = 1_000.0 + second
        one.look()
        state.metrics.events_absorbed.inc(3)
        state.metrics.events_rejected.labels("json").inc()
        state.metrics.freshness.observe(0.0055 if second % 2 else 0.0205)
    recent = cast(Any, one.describe()["recent"])
    assert 60 <= recent["seconds"] < 62
    assert recent["events"] == 3 * recent["seconds"] and recent["rejected"] == recent["seconds"]
    assert recent["late_s"] == 0
    assert recent["freshness"].keys() == {"0.006", "0.025"} and sum(recent["freshness"].values()) == recent["seconds"]


def test_lists_are_late_for_as_long_as_too_many_of_them_are(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 1_000.0
    monkeypatch.setattr(pulse.time, "monotonic", lambda: now_s)
    one = Pulse(state)
    for second in range(50):
        now_s = 1_000.0 + second
        one.look()
        for _ in range(50):
            state.metrics.freshness.observe(0.005)
        if second in (10, 11, 20):  # of fifty-one one is too many
            state.metrics.freshness.observe(0.5)
    assert cast(Any, one.describe()["recent"])["late_s"] == 3


def test_the_age_of_a_release_is_read_from_its_name(state: State) -> None:
    one = Pulse(state)
    for release, made_ms in ((None, None), ("20261122T112000Z-3fa2c1", 1_795_346_400_000), ("20269922T112000Z-3fa2c1", None), ("mine", None)):
        state.release = release
        one.observe()
        assert one.describe()["release_made_ms"] == made_ms
        assert f"streamrec_release_made_timestamp_seconds {(made_ms or 0) / 1000}" in _page(state)


def test_every_reason_and_channel_is_on_the_page_before_anything_happens(state: State) -> None:
    Pulse(state).observe()
    assert 'streamrec_events_rejected_total{reason="timestamp"} 0.0' in _page(state)
    for of in ("list", "popular", "repeat", "mf"):
        assert f'streamrec_basket_hits_total{{of="{of}"}} 0.0' in _page(state)


def test_a_redis_without_a_limit_has_the_machines(state: State) -> None:
    one = Pulse(state)
    one.memory({"used_memory": 5, "maxmemory": 0, "total_system_memory": 100})
    assert "streamrec_redis_memory_limit_bytes 100.0" in _page(state) and "streamrec_redis_memory_bytes 5.0" in _page(state)
    one.memory({"used_memory": 5, "maxmemory": 50, "total_system_memory": 100})
    assert "streamrec_redis_memory_limit_bytes 50.0" in _page(state)


def _page(state: State) -> str:
    """As prometheus writes it, large numbers spelled out."""
    lines = []
    for line in state.metrics.render().decode().splitlines():
        name, _, value = line.rpartition(" ")
        lines.append(line if line.startswith("#") else f"{name} {float(value)}")
    return "\n".join(lines)

"""A worker's releases without servers: what is announced, in whatever order and state, and what is served after it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from infra.settings import Settings
from models import recall
from models.release import BadRelease, write
from streams.announcements import Announcement, decode
from streams.engine import Engine, LogRecord
from streams.releases import ReleaseFollower
from tests.models.graphs import graph, release_of

NOW_MS = 1_763_778_821_000
ITEMS = [f"i{k}" for k in range(12)]
DEADLINE_S = 30.0


def engine_with(items: list[str], **settings: object) -> Engine:
    """An engine that has met these items."""
    engine = Engine(Settings(partitions=2, list_size=10, **settings), clock_ms=lambda: NOW_MS)  # type: ignore[arg-type]
    absorb(engine, items)
    return engine


def absorb(engine: Engine, items: list[str], user: str = "u1") -> None:
    p = engine.partition_of(user)
    offset = int(engine.state.users.position[p])
    engine.absorb(p, [
        LogRecord(offset + k, NOW_MS, msgspec.json.encode({"event_id": f"{user}{offset + k}", "user_id": user, "item_id": item,
                                                           "event_type": "view", "timestamp": NOW_MS - 10_000 + offset + k}))
        for k, item in enumerate(items)
    ])


def announcement(store: Path, version: str) -> bytes:
    return msgspec.json.encode(Announcement(version, str(store)))


def following(engine: Engine, steps: Callable[[ReleaseFollower, Callable[[Callable[[], object]], Awaitable[None]]], Awaitable[None]]) -> None:
    """Run `steps` beside a follower whose topic has been read; `until(condition)` waits for one."""

    async def until(condition: Callable[[], object]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                await asyncio.sleep(0.005)

    async def run() -> None:
        follower = ReleaseFollower(engine.state)
        follower._whole.set()
        serving = asyncio.ensure_future(follower._serve())
        try:
            await steps(follower, until)
            assert not serving.done()
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)

    asyncio.run(run())


def test_lists_name_what_is_served_and_go_back_to_what_they_were(tmp_path: Path) -> None:
    engine = engine_with(ITEMS)
    before = msgspec.json.decode(engine.lists(["u1"])["u1"])
    made = release_of(ITEMS)
    made.vectors[:] = 1.0  # says nothing of anybody
    made.vectors[4] = 9.0
    version = write(str(tmp_path), made)

    async def steps(follower: ReleaseFollower, until: Callable[[Callable[[], object]], Awaitable[None]]) -> None:
        await until(follower.settled.is_set)
        assert engine.state.release is None
        follower._hear(announcement(tmp_path, version))
        await until(lambda: engine.state.release == version)
        served = msgspec.json.decode(engine.lists(["u1"])["u1"])
        assert served["model"] == f"fusion-1+{version[-6:]}"
        assert "transformer" in served["channels"] and sorted(served["items"]) == sorted(before["items"])
        assert served["items"].index("i4") < before["items"].index("i4") or before["items"][0] == "i4"
        follower._hear(b"null")
        await until(lambda: engine.state.release is None)
        again = msgspec.json.decode(engine.lists(["u1"])["u1"])
        assert again == before and again["model"] == "fusion-1"

    following(engine, steps)


def test_bad_ones_are_refused_and_the_old_one_stays(tmp_path: Path) -> None:
    engine = engine_with(ITEMS)
    state = engine.state
    good = write(str(tmp_path), release_of(ITEMS))
    damaged = write(str(tmp_path), release_of(ITEMS))
    (tmp_path / damaged / "keys.npy").write_bytes(b"")
    misfit = write(str(tmp_path), release_of(ITEMS)._replace(graph=graph(9)))
    refused = [announcement(tmp_path, damaged), announcement(tmp_path, misfit), announcement(tmp_path, "20200101T000000Z-000000"),
               announcement(tmp_path, "../x"), msgspec.json.encode(Announcement(damaged, "nosuch://x")), b"[]", b"\xff", b'{"format":2,"version":"x","store":"y"}']

    async def steps(follower: ReleaseFollower, until: Callable[[Callable[[], object]], Awaitable[None]]) -> None:
        follower._hear(announcement(tmp_path, good))
        await until(lambda: state.release == good)
        model = state.refresher.transformer.model
        for n, value in enumerate(refused, 1):
            follower._hear(value)
            await until(lambda: state.metrics.registry.get_sample_value("streamrec_releases_refused_total") == n)
            assert state.release == good and state.refresher.transformer.model is model
            assert state.release_refused is not None and state.release_refused[1]
        follower._hear(announcement(tmp_path, good))  # it is: nothing is loaded, and nothing refused any more
        await until(lambda: state.release_refused is None)
        assert state.refresher.transformer.model is model

    following(engine, steps)


def test_only_the_newest_is_served(tmp_path: Path) -> None:
    engine = engine_with(ITEMS)
    versions = [write(str(tmp_path), release_of(ITEMS, seed=k)) for k in range(5)]
    seen = []

    async def steps(follower: ReleaseFollower, until: Callable[[Callable[[], object]], Awaitable[None]]) -> None:
        serve = engine.state.refresher.serve

        def noting(model: recall.Recall | None) -> None:
            seen.append(model and model.version)
            serve(model)

        engine.state.refresher.serve = noting  # type: ignore[method-assign]
        for version in versions:
            follower._hear(announcement(tmp_path, version))
            await asyncio.sleep(0)
        await until(lambda: engine.state.release == versions[-1])

    following(engine, steps)
    assert seen == versions[-1:]


def test_items_that_outgrow_a_model_have_it_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recall, "FEW", 8)
    engine = engine_with(ITEMS[:2])
    version = write(str(tmp_path), release_of([*ITEMS, *(f"late{k}" for k in range(30))]))

    async def steps(follower: ReleaseFollower, until: Callable[[Callable[[], object]], Awaitable[None]]) -> None:
        follower._hear(announcement(tmp_path, version))
        await until(lambda: engine.state.release == version)
        first = engine.state.refresher.transformer.model
        assert first is not None and first.items.n_known == 2
        absorb(engine, [f"late{k}" for k in range(20)], "u2")
        engine.lists(["u2"])
        assert first.outgrown
        follower._news.set()  # what the clock does every few seconds
        await until(lambda: engine.state.refresher.transformer.model is not first)
        second = engine.state.refresher.transformer.model
        assert second is not None and second.version == version and second.items.n_known == 22 and not second.outgrown

    following(engine, steps)


def test_vectors_of_users_are_those_that_lists_were_made_with(tmp_path: Path) -> None:
    engine = engine_with(ITEMS)
    refresher = engine.state.refresher
    slots = list(engine.state.users.table.slots[engine.partition_of("u1")].values())
    assert refresher.embeddings(slots) is None
    release = release_of(ITEMS)
    refresher.serve(recall.Recall(release, engine.state.items.rows[: engine.state.items.n_items]))
    found = refresher.embeddings(slots)
    assert found is not None and found[1].shape == (1, 8) and np.any(found[1])


@pytest.mark.parametrize("value", [None, b"", b"null"])
def test_nothing_is_announced(value: bytes | None) -> None:
    assert decode(value) is None


def test_what_a_later_version_adds_to_an_announcement_is_passed_over() -> None:
    assert decode(b'{"format":1,"version":"v","store":"s","why":"drift"}') == Announcement("v", "s")
    with pytest.raises(BadRelease, match="upgrade"):
        decode(b'{"format":2,"version":"v","store":"s"}')

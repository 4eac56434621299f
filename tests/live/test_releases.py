"""Releases and running workers: announced ones are served and named, bad ones are refused, and whatever happens meanwhile lists go on."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import redis

from infra.settings import Settings
from infra.stack import WorkerProcess
from models.release import Release, write
from streams.announcements import announce
from streams.embeddings import read as read_embedding
from streams.events import EVENT_TYPES
from streams.keys import Keys
from tests.live.equality import check_equal
from tests.live.load import Events, Load, send
from tests.live.pages import metric
from tests.live.test_hidden import say, tell
from tests.models.graphs import TYPE_WEIGHTS, graph, release_of

SECONDS = 15.0  # in which all workers follow an announcement and say so, on two busy cores
LOADED_S = 60.0
ITEMS = [f"i{n}" for n in range(24)]
Namespace = Callable[..., Settings]
Start = Callable[..., WorkerProcess]
WaitUntil = Callable[..., Any]


def run(settings: Settings, store: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """`streamrec models ...` as an operator calls it."""
    env = {**os.environ, **settings.environment(), "STREAMREC_MODELS_STORE": str(store)}
    return subprocess.run([sys.executable, "-m", "infra.cli", "models", *args], capture_output=True, text=True, env=env, timeout=60)


def release(worker: WorkerProcess) -> str | None:
    found = (worker.state() or {}).get("release")
    return None if found is None else str(found)


def refused(worker: WorkerProcess) -> dict[str, str]:
    return (worker.state() or {}).get("release_refused") or {}


def list_of(settings: Settings, client: redis.Redis, user: str) -> dict[str, Any]:
    return dict(json.loads(client.get(Keys(settings.prefix).list_of(user)) or b"{}"))  # type: ignore[arg-type]


def fresh_list(settings: Settings, client: redis.Redis, wait_until: WaitUntil, user: str = "someone") -> dict[str, Any]:
    """The list that follows an event of now."""
    before = list_of(settings, client, user).get("as_of")
    tell(settings, [(user, "i3", "view"), (user, "i5", "purchase")])
    return dict(wait_until(lambda: (found := list_of(settings, client, user)).get("as_of") != before and found, 30.0, "a fresh list"))


def big(n: int, d: int = 64, **more: object) -> Release:
    return release_of([*ITEMS, *(f"other{k}" for k in range(n))], d, **more)


def test_served_refused_rolled_back(namespace: Namespace, start_worker: Start, wait_until: WaitUntil, tmp_path: Path,
                                    redis_client: Callable[[Settings], redis.Redis]) -> None:
    settings, store = namespace(), tmp_path / "store"
    workers = [start_worker(settings), start_worker(settings)]
    for worker in workers:
        worker.wait_ready()
    client = redis_client(settings)
    send(settings, Events(settings, seed=1), 400)
    assert fresh_list(settings, client, wait_until)["model"] == "fusion-1"

    first = write(str(store), release_of(ITEMS))
    done = run(settings, store, "promote", first)
    assert done.returncode == 0 and f"release {first}" in done.stdout, done.stderr
    wait_until(lambda: [release(worker) for worker in workers] == [first] * 2, SECONDS, "both serve the first release")
    made = fresh_list(settings, client, wait_until)
    assert made["model"] == f"fusion-1+{first[-6:]}" and set(made["items"]) == set(ITEMS)

    # whatever is wrong with one, the first stays
    def damaged(name: str, change: Callable[[bytes], bytes]) -> str:
        version = write(str(store), release_of(ITEMS, seed=2))
        path = store / version / name
        path.write_bytes(change(path.read_bytes()))
        return version

    bad = {
        damaged("vectors.npy", lambda data: data[:-100]): "damaged",
        damaged("keys.npy", lambda data: data[:-1] + b"\x01"): "damaged",
        damaged("manifest.json", lambda data: data.replace(b'"format": 1', b'"format": 2')): "upgrade",
        write(str(store), release_of(ITEMS)._replace(graph=graph(9))): "graph",
        "20200101T000000Z-000000": "no manifest.json",
    }
    for version, said in bad.items():
        assert run(settings, store, "promote", version).returncode == 1  # the command looks at it first
        asyncio.run(announce(settings, str(store), version))
        wait_until(lambda: [refused(worker).get("version") for worker in workers] == [version] * 2, SECONDS, "both refuse")
        assert all(said in refused(worker)["why"] for worker in workers), refused(workers[0])
        assert [release(worker) for worker in workers] == [first] * 2
    assert fresh_list(settings, client, wait_until)["model"].endswith(first[-6:])
    assert [metric(worker, "streamrec_releases_refused_total") for worker in workers] == [len(bad)] * 2
    assert f"release {first} stays" in workers[0].log

    # ten times as many items as the workers know
    second = write(str(store), big(240, 8))
    assert run(settings, store, "promote", second[-6:]).returncode == 0
    wait_until(lambda: [release(worker) for worker in workers] == [second] * 2, SECONDS, "both serve the second release")
    made = fresh_list(settings, client, wait_until)
    assert made["model"].endswith(second[-6:]) and set(made["items"]) == set(ITEMS)
    listed = json.loads(run(settings, store, "list", "--json").stdout)
    assert listed["announced"]["version"] == second and set(listed["workers"].values()) == {second} and not listed["refused"]
    shown = run(settings, store, "list").stdout
    assert f"{second}  " in shown and "announced, 2 of 2" in shown

    done = run(settings, store, "rollback", first)
    assert done.returncode == 0, done.stderr
    wait_until(lambda: [release(worker) for worker in workers] == [first] * 2, SECONDS, "both have gone back")
    assert fresh_list(settings, client, wait_until)["model"].endswith(first[-6:])

    # a worker that starts serves it from its first list on; and none is served when none is announced
    late = start_worker(settings)
    assert late.wait_ready()["release"] == first
    assert run(settings, store, "promote", "none").returncode == 0
    wait_until(lambda: not any(release(worker) for worker in [*workers, late]), SECONDS, "none is served")
    assert fresh_list(settings, client, wait_until)["model"] == "fusion-1"
    check_equal(settings)


def test_killed_while_it_loads(namespace: Namespace, start_worker: Start, wait_until: WaitUntil, tmp_path: Path,
                               redis_client: Callable[[Settings], redis.Redis]) -> None:
    settings, store = namespace(session_timeout_ms=2_000), tmp_path / "store"
    version = write(str(store), big(300_000))
    send(settings, Events(settings, seed=3), 300)
    asyncio.run(announce(settings, str(store), version))
    for wait_s in (0.0, 0.1, 0.3):
        worker = start_worker(settings)
        wait_until(lambda: f"loading release {version}" in worker.log, LOADED_S, "it loads")
        time.sleep(wait_s)
        worker.kill()
    worker = start_worker(settings)
    worker.wait_ready()
    wait_until(lambda: release(worker) == version, LOADED_S, "it serves the release")
    client = redis_client(settings)
    assert fresh_list(settings, client, wait_until)["model"].endswith(version[-6:])
    check_equal(settings)


def test_never_three_in_memory_and_only_the_newest_counts(namespace: Namespace, start_worker: Start, wait_until: WaitUntil,
                                                          tmp_path: Path) -> None:
    settings, store = namespace(), tmp_path / "store"
    n = 400_000
    made = big(n, seed=1)
    versions = [write(str(store), made) for _ in range(6)]
    bad = write(str(store), made._replace(graph=graph(9)))
    n_bytes = made.vectors.nbytes + made.keys.nbytes
    worker = start_worker(settings)
    worker.wait_ready()
    asyncio.run(announce(settings, str(store), write(str(store), release_of(ITEMS, 64))))  # brings the runtime in
    wait_until(lambda: release(worker) is not None, LOADED_S, "it serves a small one")
    before = peak_bytes(worker)
    for version in versions[:4]:
        asyncio.run(announce(settings, str(store), version))
        wait_until(lambda: release(worker) == version, LOADED_S, "it serves the next")
        asyncio.run(announce(settings, str(store), bad))
        wait_until(lambda: refused(worker).get("version") == bad, LOADED_S, "it refuses one after it was read")
    for version in versions:
        asyncio.run(announce(settings, str(store), version))
    wait_until(lambda: release(worker) == versions[-1], LOADED_S, "it serves the newest")
    assert peak_bytes(worker) - before < 2.75 * n_bytes
    # those between were not all loaded: while one is, only the newest of the others waits
    assert len(re.findall("loading release", worker.log)) < 1 + 8 + len(versions)


def peak_bytes(worker: WorkerProcess) -> int:
    """The most memory that it ever held."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{worker.pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def test_deleted_items_and_vectors_of_users(namespace: Namespace, start_worker: Start, wait_until: WaitUntil, tmp_path: Path,
                                            redis_client: Callable[[Settings], redis.Redis]) -> None:
    settings, store = namespace(publish_embeddings="on"), tmp_path / "store"
    made = release_of(ITEMS)
    made = made._replace(vectors=made.vectors / np.linalg.norm(made.vectors, axis=1, keepdims=True))
    made.vectors[7] = 3 * made.vectors[3]  # who has item 3 is told of item 7 before all others
    version = write(str(store), made)
    worker = start_worker(settings, env={})
    worker.wait_ready()
    client = redis_client(settings)
    send(settings, Events(settings, seed=4), 400)
    asyncio.run(announce(settings, str(store), version))
    wait_until(lambda: release(worker) == version, SECONDS, "it serves the release")
    tell(settings, [("one", "i3", "purchase")])
    wait_until(lambda: list_of(settings, client, "one").get("model", "").endswith(version[-6:]), 30.0, "a list with it")

    found = read_embedding(client.get(Keys(settings.prefix).embedding("one")) or b"")  # type: ignore[arg-type]
    assert found.model == version and found.as_of[:2] == tuple(list_of(settings, client, "one")["as_of"].values())[:2]
    assert np.allclose(found.vector, made.vectors[3] * TYPE_WEIGHTS[EVENT_TYPES.index("purchase")], atol=2e-3)

    assert "i7" in list_of(settings, client, "one")["items"]
    say(settings, {"i7": None})
    time.sleep(1.0)
    made_list = fresh_list(settings, client, wait_until, "one")
    assert "i7" not in made_list["items"] and made_list["model"].endswith(version[-6:])
    wait_until(lambda: "i7" not in list_of(settings, client, "someone").get("items", []), 30.0, "no list has it")


def test_a_store_that_does_not_answer_is_asked_again(namespace: Namespace, start_worker: Start, wait_until: WaitUntil,
                                                     tmp_path: Path) -> None:
    settings, store = namespace(), tmp_path / "store"
    version = write(str(store), release_of(ITEMS))
    os.rename(store / version, store / "away")
    (store / version).symlink_to(store / version)  # a circle: neither there nor missing, as a mount that hangs
    asyncio.run(announce(settings, str(store), version))
    worker = start_worker(settings)
    worker.wait_ready()  # it does not wait for it for ever
    assert "does not answer" in worker.log and release(worker) is None and not refused(worker)
    (store / version).unlink()
    os.rename(store / "away", store / version)
    wait_until(lambda: release(worker) == version, LOADED_S, "it serves the release")


def test_lists_go_on_while_releases_come_and_go(namespace: Namespace, start_worker: Start, wait_until: WaitUntil, tmp_path: Path) -> None:
    settings, store = namespace(), tmp_path / "store"
    versions = [write(str(store), big(n, seed=n)) for n in (20_000, 50_000)]
    workers = [start_worker(settings), start_worker(settings)]
    for worker in workers:
        worker.wait_ready()
    with Load(settings, Events(settings, seed=5), rate=200) as load:
        for k in range(6):
            version = versions[k % 2]
            asyncio.run(announce(settings, str(store), version))
            wait_until(lambda: [release(worker) for worker in workers] == [version] * 2, LOADED_S, "both serve it")
        load.stop()
    check_equal(settings)

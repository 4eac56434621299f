"""`streamrec up`, `status`, `down` as a user runs them, on servers of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from infra.settings import Settings
from infra.stack import LocalStack, WorkerProcess

ROOT = Path(__file__).parent.parent.parent


class Home:
    """A folder in which the command keeps its stack."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *args: str, settings: Settings | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "infra.cli", *args], capture_output=True, text=True, timeout=120, cwd=ROOT,
                              env={**os.environ, **(settings.environment() if settings else {}), "STREAMREC_HOME": str(self.folder)})


@pytest.fixture
def home(tmp_path: Path, jars_home: Path) -> Iterator[Home]:
    for jars in jars_home.glob("kafka-*"):  # so that Maven is not asked again
        (tmp_path / jars.name).symlink_to(jars)
    yield Home(tmp_path)
    LocalStack(tmp_path).stop()


def test_up_status_down(home: Home) -> None:
    up = home.run("up")
    assert up.returncode == 0, up.stderr
    again = home.run("up")
    assert again.returncode == 0 and "were there" in again.stdout

    settings = Settings.load({"STREAMREC_HOME": str(home.folder)})
    with redis.from_url(settings.redis_url) as client:
        client.set("rec:u1", b"{}")
        client.set("g1:{3}:u:u1", b"row")
        client.set("g1:{3}:checkpoint", json.dumps({"v": 1, "offset": 0}))
        client.set("workers:a", json.dumps({"id": "a", "pid": 1, "partitions": [3], "oldest_dirty_ms": 40, "lag": {"3": 0}}))
    status = home.run("status", "--json")
    assert status.returncode == 1 and "1 of 1 workers are not ready" in status.stderr  # nor will it ever be
    report = json.loads(status.stdout)
    assert report["kafka"]["bootstrap"] == settings.kafka_bootstrap and report["kafka"]["up"]
    assert report["redis"]["url"] == settings.redis_url and report["redis"]["up"]
    assert report["lag"] == {str(p): 0 for p in range(8)} and report["topics"]["events"] == 8
    assert (report["lists"], report["rows"], report["oldest_dirty_ms"]) == (1, 1, 40)
    assert [worker["id"] for worker in report["workers"]] == ["a"]
    with redis.from_url(settings.redis_url) as client:
        client.set("workers:a", json.dumps({"id": "a", "pid": 1, "partitions": list(range(8)), "ready": True}))
    assert home.run("status").returncode == 0

    stack = LocalStack(home.folder)
    pids = [server.pid for server in (stack.kafka, stack.redis) if server.pid]
    down = home.run("down")
    assert down.returncode == 0, down.stderr
    assert len(pids) == 2 and not any(psutil.pid_exists(pid) for pid in pids)
    gone = home.run("status", "--json")
    assert gone.returncode == 1 and json.loads(gone.stdout)["kafka"]["up"] is False
    assert "does not answer" in gone.stderr and "Traceback" not in gone.stderr

    assert home.run("up").returncode == 0  # the data is still there
    with redis.from_url(Settings.load({"STREAMREC_HOME": str(home.folder)}).redis_url) as client:
        assert client.get("rec:u1") == b"{}"


STOP_DEADLINE_S = 5.0  # what `worker` promises after SIGTERM


def test_import_worker_lookup(home: Home, namespace: Callable[..., Settings], start_worker: Callable[..., WorkerProcess],
                              wait_until: Callable[..., Any]) -> None:
    settings = namespace()
    worker = start_worker(settings)
    file = home.folder / "shop.csv"
    file.write_text("household,product,when\nu1,i1,2024-01-01T10:00:00Z\nu1,i2,2024-01-01T10:01:00Z\n"
                    "u2,i1,2024-01-01T10:02:00Z\n,i1,2024-01-01T10:02:00Z\nu2,i1,yesterday\n")
    columns = "--user", "household", "--item", "product", "--time", "when"
    done = home.run("import", str(file), *columns, "--json", settings=settings)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["rows"], report["accepted"], sum(report["rejected"].values())) == (5, 3, 2)
    again = home.run("import", str(file), *columns, settings=settings)
    assert again.returncode == 0 and "5 rows were done before" in again.stdout

    worker.wait_ready()

    def drained() -> dict[str, Any] | None:
        answer = json.loads(home.run("status", "--json", settings=settings).stdout)
        return answer if answer["lag_total"] == 0 and answer["lists"] == 2 else None

    report = wait_until(drained, 30.0, "lag is 0 and both users have lists")
    assert report["rows"] == 2 and [entry["pid"] for entry in report["workers"]] == [worker.pid]
    found = json.loads(home.run("lookup", "u1", "--json", settings=settings).stdout)
    assert set(found["items"]) == {"i1", "i2"} and found["user"] == "u1" and not found["fallback"]
    assert json.loads(home.run("lookup", "nobody", "--json", settings=settings).stdout)["fallback"]
    assert "i2" in home.run("lookup", "u1", settings=settings).stdout

    began = time.monotonic()
    assert worker.stop() == 0, worker.log[-2000:]
    assert time.monotonic() - began < STOP_DEADLINE_S

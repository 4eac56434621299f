"""Hard cases of training and releasing that need more than one process: a disk that fills up, items by their text, a kill at the swap."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

pytest.importorskip("torch")

from infra.settings import Settings  # noqa: E402
from infra.stack import WorkerProcess  # noqa: E402
from models.hashing import stable_hash  # noqa: E402
from models.release import read, write  # noqa: E402
from streams.announcements import announce, announced  # noqa: E402
from tests.consumers.trainer.worlds import QUICK, RING, events  # noqa: E402
from tests.live.equality import check_equal  # noqa: E402
from tests.live.load import Events, send  # noqa: E402
from tests.live.test_hidden import say, tell  # noqa: E402
from tests.live.test_releases import LOADED_S, big, fresh_list, list_of, release  # noqa: E402
from tests.live.test_trainer import environment, put, train  # noqa: E402
from tests.models.graphs import release_of  # noqa: E402

STEP_S = 300.0
Namespace = Callable[..., Settings]
Start = Callable[..., WorkerProcess]
WaitUntil = Callable[..., Any]

#: The service on a disk of its own that fills up when a training has begun, and has room again once that was said.
FULL_DISK = """
import asyncio, logging, os, subprocess, sys, threading, time
from pathlib import Path
from consumers.trainer import Trainer, service
from infra.settings import Settings
from streams.announcements import announced
service.AGAIN_S = 0.5
logging.basicConfig(level="INFO")
said = []
class Ear(logging.Handler):
    def emit(self, record):
        said.append(record.getMessage())
logging.getLogger().addHandler(Ear())
settings, disk = Settings.load(), Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)], check=True)
def heard(text):
    return any(text in line for line in said)
def fill_and_free():
    while not (disk / "trainer" / "job" / "plan.json").exists():
        time.sleep(0.01)
    with (disk / "filler").open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(4096))
        except OSError:
            pass
    print("full", flush=True)
    while not (heard("No space left") or heard("no room")):
        time.sleep(0.05)
    (disk / "filler").unlink()
    print("free", flush=True)
async def main():
    serving = asyncio.ensure_future(Trainer(settings).serve())
    threading.Thread(target=fill_and_free, daemon=True).start()
    while not heard("is announced") and not serving.done():
        await asyncio.sleep(0.1)
    if serving.done():
        serving.result()
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
asyncio.run(main())
print("announced", asyncio.run(announced(settings)).version, *os.listdir(disk / "models"), flush=True)
"""


@pytest.mark.timeout(900)
def test_a_disk_that_fills_up_in_a_training_is_waited_for(namespace: Namespace, tmp_path: Path) -> None:
    if subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", str(tmp_path)], capture_output=True).returncode:
        pytest.skip("this system gives no mounts of one's own")
    settings = namespace(train_folder=str(tmp_path / "trainer"), models_store=str(tmp_path / "models"), train_model=f"{QUICK},checkpoint_s=0.01",
                         train_every_s=3_600)
    put(settings, events(1, 150))
    done = subprocess.run(["unshare", "-rm", sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, timeout=STEP_S,
                          env={**environment(settings), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    words = done.stdout.split()
    assert words[:3] == ["full", "free", "announced"] and words[3:] == [words[3], words[3]], done.stdout + done.stderr


@pytest.mark.timeout(900)
def test_an_item_that_nobody_took_comes_into_lists_by_its_text(namespace: Namespace, start_worker: Start, wait_until: WaitUntil, tmp_path: Path,
                                                               redis_client: Callable[[Settings], redis.Redis]) -> None:
    settings = namespace(train_folder=str(tmp_path / "trainer"), models_store=str(tmp_path / "models"), train_model=QUICK, train_text="title",
                         blend="transformer=1", learn="off", retention_s=10**9)
    titles = {f"i{n}": {"title": f"place{n:03d} of{n * 7 % RING:03d}"} for n in range(RING)}
    say(settings, {**titles, "twin": titles["i12"], "gone": titles["i12"], "hid": {**titles["i12"], "hidden": True}})
    say(settings, {"gone": None})
    put(settings, events(1, 250))
    version, verdict = train(settings)
    assert verdict.passed
    made = read(settings.store(), version)
    extra = set(made.keys.tolist()) - {stable_hash(f"i{n}") for n in range(RING)}
    assert extra == {stable_hash("twin")}, "items that are hidden or deleted are in no release"
    worker = start_worker(settings)
    worker.wait_ready()
    wait_until(lambda: release(worker) == version, LOADED_S, "it serves the release")
    tell(settings, [("one", "i11", "view")])  # behind which i12 comes, and what has its text
    client = redis_client(settings)
    found = wait_until(lambda: (lst := list_of(settings, client, "one")).get("model", "").endswith(version[-6:]) and lst, LOADED_S, "a list with it")
    assert {"twin", "i12"} <= set(found["items"][:4])
    assert found["channels"][found["why"][found["items"].index("twin")]] == "transformer"


def test_killed_as_it_swaps(namespace: Namespace, start_worker: Start, wait_until: WaitUntil, tmp_path: Path,
                            redis_client: Callable[[Settings], redis.Redis]) -> None:
    settings, store = namespace(session_timeout_ms=2_000), tmp_path / "store"
    versions = [write(str(store), made) for made in (release_of([f"i{n}" for n in range(24)], 64), big(50_000), big(60_000, seed=1))]
    send(settings, Events(settings, seed=8), 400)
    asyncio.run(announce(settings, str(store), versions[0]))
    for version in versions[1:]:
        worker = start_worker(settings)
        worker.wait_ready()
        asyncio.run(announce(settings, str(store), version))
        wait_until(lambda: f"lists are made with release {version}" in worker.log, LOADED_S, "it swaps")  # noqa: B023 - called at once
        worker.kill()
    worker = start_worker(settings)
    worker.wait_ready()
    wait_until(lambda: release(worker) == versions[-1], LOADED_S, "it serves the newest")
    assert fresh_list(settings, redis_client(settings), wait_until)["model"].endswith(versions[-1][-6:])
    current = asyncio.run(announced(settings))
    assert current is not None and current.version == versions[-1]
    check_equal(settings)

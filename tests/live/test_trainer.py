"""The trainer on a real Kafka: from events to an announced release, killed at every step, two at once, and as the command that users call."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

pytest.importorskip("torch")

from consumers.lease import Lease  # noqa: E402
from consumers.trainer import Trainer  # noqa: E402
from consumers.trainer.window import TooLittle  # noqa: E402
from infra.settings import Settings  # noqa: E402
from models.release import read, versions  # noqa: E402
from models.transformer.weights import Weights  # noqa: E402
from streams.announcements import announced  # noqa: E402
from streams.partitioner import partition_of  # noqa: E402
from tests.consumers.trainer.worlds import QUICK, events  # noqa: E402
from tests.live.dying_forks import Place, dies_at  # noqa: E402

STEP_S = 240.0  # a training of seconds, on a machine that has other things to do
ROOT = Path(__file__).parent.parent.parent
JOB = "consumers.trainer.training"

#: Where a training is killed, one after the other: each goes on from what the one before has left.
DEATHS = (
    Place("consumers.event_log.parquet", "write", 2),  # the log: some partitions are written
    Place("consumers.event_log.parquet", "write", 3),  # and the others, but their days only in part
    Place("consumers.event_log.compaction", "_sweep"),
    Place(JOB, "Window.save"),
    Place(JOB, "put_bytes"),  # the plan
    Place(JOB, "put_bytes", after=True),
    Place("models.transformer.training", "_Loop._one_step", 30),
    Place("models.transformer.training", "_Loop.save", 2, after=True),
    Place("consumers.trainer.learning", "Weights.save", after=True),
    Place("models.transformer.export", "to_onnx"),
    Place(JOB, "write", after=True),  # the candidate
    Place(JOB, "judge"),
    Place(JOB, "put_bytes"),  # the verdict
    Place("models.release", "os.rename"),  # the release, under its temporary name
    Place("consumers.trainer.surroundings", "announce"),
    Place(JOB, "Training._finish"),  # announced
    Place(JOB, "os.rename"),  # the end
)


@pytest.fixture(autouse=True)
def _short_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumers.trainer.service.Lease", partial(Lease, session_ms=2_000))  # a killed trainer's turn is over so long after


@pytest.fixture
def settings(namespace: Callable[..., Settings], tmp_path: Path) -> Settings:
    return namespace(train_folder=str(tmp_path / "trainer"), models_store=str(tmp_path / "models"), train_model=f"{QUICK},checkpoint_s=0.01")


def put(settings: Settings, sent: list[dict[str, Any]]) -> None:
    async def run() -> None:
        producer = AIOKafkaProducer(**settings.kafka_client_args(), linger_ms=5)
        await producer.start()
        try:
            await asyncio.gather(*[await producer.send(settings.topic("events"), json.dumps(event).encode(), key=event["user_id"].encode(),
                                                       partition=partition_of(event["user_id"], settings.partitions)) for event in sent])
        finally:
            await producer.stop()

    asyncio.run(run())


def train(settings: Settings) -> Any:
    return asyncio.run(Trainer(settings).train_once())


def environment(settings: Settings) -> dict[str, str]:
    return {**{name: value for name, value in os.environ.items() if not name.startswith("STREAMREC_")}, **settings.environment(),
            "PYTHONPATH": str(ROOT)}


@pytest.mark.timeout(1200)
def test_killed_at_every_step_one_release_comes_of_it(settings: Settings, tmp_path: Path) -> None:
    put(settings, events(1, 150))
    version = None
    for place in DEATHS:
        assert dies_at(place, lambda: train(settings)), f"it never came to {place}"
        plan = tmp_path / "trainer" / "job" / "plan.json"
        if version is None and plan.exists():
            version = json.loads(plan.read_bytes())["version"]
        assert version is None or json.loads(plan.read_bytes())["version"] == version
    done, verdict = train(settings)
    assert done == version and verdict.passed
    assert versions(settings.store()) == [version] == [path.name for path in (tmp_path / "trainer" / "trainings").iterdir()]
    current = asyncio.run(announced(settings))
    assert current is not None and (current.version, current.store) == (version, settings.store())
    release = read(current.store, current.version)
    assert release.manifest.metrics["passed"] and release.manifest.data["n_events"] > 500
    assert release.manifest.data["last_offsets"].keys() == {str(p) for p in range(settings.partitions)}
    assert not (tmp_path / "trainer" / "job").exists()
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith((".part", ".partial", ".tmp"))]


@pytest.mark.timeout(900)
def test_a_renewal_is_warm_and_a_worse_one_is_kept(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(settings, events(1, 150))
    first, _ = train(settings)
    put(settings, [event | {"item_id": event["item_id"].replace("i", "new")} if n % 40 == 0 else event for n, event in enumerate(events(2, 60, first_user=120))])
    begun = []
    monkeypatch.setattr("models.transformer.training._warm", lambda network, start, known, do=_warm(): begun.append(known) or do(network, start, known))
    second, verdict = train(settings)
    (known,) = begun  # rows of old items are taken over, new items have none
    assert (known >= 0).sum() == 30 and (known < 0).sum() > 3
    assert read(settings.store(), second).manifest.parent == first and verdict.passed and verdict.against == first
    served = asyncio.run(announced(settings))
    assert served is not None and served.version == second
    # learned from nothing for a fiftieth of a pass: worse, and not released
    third, verdict = train(Settings.load({}, **{**_all(settings), "train_model": QUICK.replace("epochs=12", "epochs=0.02").replace("d=16", "d=8")}))
    assert not verdict.passed and verdict.against == second and verdict.difference["high"] < 0
    kept = tmp_path / "trainer" / "trainings" / third
    assert "against" in json.loads((kept / "verdict.json").read_bytes())["why"]
    assert read(str(kept / "candidate"), third).manifest.version == third and Weights.load(kept / "weights.npz").model.d == 8
    assert versions(settings.store()) == [first, second]
    served = asyncio.run(announced(settings))
    assert served is not None and served.version == second


def _warm() -> Callable[..., None]:
    from models.transformer import training

    return training._warm


def _all(settings: Settings) -> dict[str, Any]:
    return {name.removeprefix("STREAMREC_").lower(): value for name, value in settings.environment().items()}


def test_an_empty_log_and_a_log_of_one_user(settings: Settings) -> None:
    with pytest.raises(TooLittle, match="the event log is empty"):
        train(settings)
    put(settings, events(1, 1))
    with pytest.raises(TooLittle, match="of 1 users"):
        train(settings)
    assert asyncio.run(announced(settings)) is None


@pytest.mark.timeout(900)
def test_the_service_trains_by_itself_and_a_second_one_waits(settings: Settings, tmp_path: Path, wait_until: Callable[..., Any]) -> None:
    put(settings, events(1, 150))
    logs = [tmp_path / f"{name}.log" for name in ("first", "second", "elsewhere")]
    elsewhere = {"STREAMREC_TRAIN_FOLDER": str(tmp_path / "elsewhere")}
    running: list[subprocess.Popen[bytes]] = []

    def start(log: Path, **more: str) -> subprocess.Popen[bytes]:
        with log.open("ab") as out:
            running.append(subprocess.Popen([sys.executable, "-m", "infra.cli", "train", "--every", "1h", "--set", "train_log_flush_s=1"],
                                            env={**environment(settings), **more}, stdout=out, stderr=out))
        return running[-1]

    def says(log: Path, text: str) -> bool:
        return text in log.read_text(errors="replace")

    try:
        one = start(logs[0])
        wait_until(lambda: says(logs[0], "metrics at"), STEP_S, "the first one is at work")
        two = start(logs[1])  # of the same folder
        wait_until(lambda: says(logs[1], f"being written by process {one.pid} on"), STEP_S, "the second one says who is at work")
        wait_until(lambda: says(logs[0], "is announced"), STEP_S, "the first one has trained")
        three = start(logs[2], **elsewhere)  # of another machine, as it were
        wait_until(lambda: says(logs[2], "another trainer of this system is at work"), STEP_S, "the third one says that it waits")
        first = asyncio.run(announced(settings))
        assert first is not None and versions(settings.store()) == [first.version]
        assert not says(logs[1], "begins") and not says(logs[2], "begins")
        one.kill()
        two.terminate()
        one.wait(STEP_S)
        assert two.wait(STEP_S) == 0
        # it has no weights of the other's to begin with, and may do worse
        wait_until(lambda: says(logs[2], "is announced") or says(logs[2], "is not released"), STEP_S, "the third one has taken over")
        assert says(logs[2], f"of {first.version}")
        three.send_signal(signal.SIGTERM)
        assert three.wait(STEP_S) == 0 and not says(logs[2], "Traceback")
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
                process.wait()


@pytest.mark.timeout(900)
def test_the_command(settings: Settings, tmp_path: Path) -> None:
    def call(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "infra.cli", "train", *args], env=environment(settings), capture_output=True, text=True, timeout=STEP_S)

    nothing = call("--once")
    assert nothing.returncode == 1 and nothing.stderr.strip().splitlines()[-1].startswith("streamrec train: the event log is empty")
    put(settings, events(1, 150))
    done = call("--once", "--json", "--set", "train_rounding=vectors")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert abs(told["figures"]["not rounded"]["ndcg@10"] - told["figures"]["candidate"]["ndcg@10"]) < 0.05
    assert told["passed"] and told["figures"]["candidate"]["ndcg@10"] > told["figures"]["popularity"]["ndcg@10"]
    assert "learning: step" in done.stderr and "judging" in done.stderr
    assert "train_model has 'd=x'" in call("--once", "--set", "train_model=d=x").stderr
    vectors = read(settings.store(), told["version"]).vectors
    assert vectors.shape == (30, 16) and vectors.dtype.name == "int8"

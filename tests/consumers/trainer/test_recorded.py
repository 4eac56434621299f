"""A training on a file: the trainer's own steps without Kafka, killed and gone on with, warm, and with a vocabulary that grows."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from consumers.backtest.files import load_file  # noqa: E402
from consumers.backtest.log import Log  # noqa: E402
from consumers.event_log import EventLog  # noqa: E402
from consumers.trainer.learning import TrainerError  # noqa: E402
from consumers.trainer.recorded import FOLDER, RecordedLog, _alone, train_recorded  # noqa: E402
from consumers.trainer.window import Choice, TooLittle, Window, make_window  # noqa: E402
from infra.cli.entry import main  # noqa: E402
from infra.settings import Settings  # noqa: E402
from models.hashing import stable_hash  # noqa: E402
from models.release import read, read_manifest, versions  # noqa: E402
from tests.consumers.trainer.worlds import QUICK, RING, events, fill  # noqa: E402

ROOT = Path(__file__).parent.parent.parent.parent


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(train_folder=str(tmp_path / "trainer"), models_store=str(tmp_path / "models"), train_model=QUICK)


def write(path: Path, sent: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(event) + "\n" for event in sent))
    return path


def log_of(path: Path, sent: list[dict[str, Any]]) -> Log:
    return load_file(write(path, sent), dict.fromkeys(("user", "item", "time", "type", "value", "basket", "category"))).log


def sequences(window: Window) -> list[list[tuple[int, int]]]:
    parts = np.split(np.arange(len(window.items)), window.ends[:-1])
    return sorted([(int(window.keys[window.items[k]]), int(window.times_ms[k])) for k in part] for part in parts)


@pytest.mark.parametrize(("days", "exemplars"), [(1000, 0.0), (8, 0.5)])
def test_a_file_gives_the_window_that_its_events_give_in_the_event_log(settings: Settings, tmp_path: Path, days: int, exemplars: float) -> None:
    sent = events(1, 150)
    for n, event in enumerate(sent):
        event["event_type"] = ("view", "rating", "impression", "purchase")[n % 4]
        if n % 8 == 1:
            event["value"] = float(1 + n % 5)
    fill(tmp_path / "log", sent)
    recorded = RecordedLog(settings, log_of(tmp_path / "events.jsonl", sent), announce=False)
    choice = Choice(window_days=days, exemplars=exemplars, type_weights=settings.type_weights(), neutral=3.0, seed=5)
    with EventLog(tmp_path / "log").snapshot() as log, recorded.moment() as file:
        wanted, found = (make_window(moment, moment.ends, moment.days()[-1], choice) for moment in (log, file))
        assert file.days() == log.days() and file.n_rows() == log.n_rows()
        assert file.n_rows((log.days()[2], log.days()[4])) == log.n_rows((log.days()[2], log.days()[4]))
    assert sequences(found) == sequences(wanted) and sorted(found.targets) == sorted(wanted.targets)


def test_from_a_file_to_a_release_and_a_warm_renewal_with_ten_times_the_items(settings: Settings, tmp_path: Path,
                                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    first, verdict = train_recorded(settings, log_of(tmp_path / "one.jsonl", events(1, 150)))
    assert verdict.passed and verdict.against == "popularity" and versions(settings.store()) == [first]
    release = read(settings.store(), first)
    assert release.manifest.data["n_items"] == RING and sorted(release.keys) == sorted(stable_hash(f"i{n}") for n in range(RING))
    from models.transformer import training

    begun: list[np.ndarray] = []
    warm = training._warm
    monkeypatch.setattr(training, "_warm", lambda network, start, known: begun.append(known) or warm(network, start, known))
    grown = events(1, 150)
    for k in range(1, 10):  # nine more rings beside the first
        grown += [event | {"item_id": f"{event['item_id']}-{k}"} for event in events(10 + k, 150, first_user=1000 * k)]
    second, verdict = train_recorded(settings, log_of(tmp_path / "two.jsonl", grown))
    (known,) = begun
    assert (known >= 0).sum() == RING and len(known) == 10 * RING
    assert verdict.against == first and verdict.passed and read_manifest(settings.store(), second).parent == first
    assert len(read(settings.store(), second).keys) == 10 * RING


def test_killed_while_it_learns_it_goes_on_and_another_file_begins_anew(settings: Settings, tmp_path: Path) -> None:
    one, two = write(tmp_path / "one.jsonl", events(1, 150)), write(tmp_path / "two.jsonl", events(2, 150))
    settings = dataclasses.replace(settings, train_model=f"{QUICK},checkpoint_s=0.01")
    job = tmp_path / "trainer" / FOLDER / "job"

    def die() -> str:
        script = ("import sys, os, signal\nfrom models.transformer import training\nstep = training._Loop._one_step\n"
                  "def dying(self):\n    if self.step == 10: os.kill(os.getpid(), signal.SIGKILL)\n    return step(self)\n"
                  "training._Loop._one_step = dying\nfrom infra.cli.entry import main\nmain(['train', sys.argv[1]])")
        done = subprocess.run([sys.executable, "-c", script, str(one)], cwd=ROOT, capture_output=True, text=True, timeout=240,
                              env={**os.environ, **settings.environment()})
        assert done.returncode == -signal.SIGKILL, done.stderr
        return str(json.loads((job / "plan.json").read_bytes())["version"])

    killed = die()
    assert (job / "checkpoint.pt").exists() and not (job / "weights.npz").exists()
    version, _ = train_recorded(settings, log_of(one, events(1, 150)))
    assert version == killed and not job.exists()
    killed = die()
    version, _ = train_recorded(settings, log_of(two, events(2, 150)))
    assert version != killed and not job.exists()


def test_the_command_reads_files_as_the_backtest_does(settings: Settings, tmp_path: Path) -> None:
    csv = tmp_path / "bought.csv"
    csv.write_text("who,what,when\n" + "".join(f"{e['user_id']},{e['item_id']},{e['timestamp']}\n" for e in events(1, 150)))
    env = {**{name: value for name, value in os.environ.items() if not name.startswith("STREAMREC_")}, **settings.environment(),
           "STREAMREC_KAFKA_BOOTSTRAP": "127.0.0.1:1"}

    def call(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "infra.cli", "train", *args], cwd=ROOT, env=env, capture_output=True, text=True, timeout=240)

    done = call(str(csv), "--user", "who", "--item", "what", "--time", "when", "--store", str(tmp_path / "own"))
    assert done.returncode == 0, done.stderr
    (version,) = versions(str(tmp_path / "own"))
    assert f"release {version} lies in {tmp_path / 'own'}; `streamrec models promote {version[-6:]}` has it served" in done.stdout
    assert "columns: user=who, item=what, time=when" in done.stderr and "learning: step" in done.stderr
    done = call(str(csv), "--user", "who", "--item", "what", "--time", "when", "--store", str(tmp_path / "own"), "--json", "--set", "train_model=d=8,epochs=0.02")
    told = json.loads(done.stdout)
    assert not told["passed"] and told["against"] == version and versions(str(tmp_path / "own")) == [version]
    assert (Path(settings.train_folder) / FOLDER / "trainings" / told["version"] / "verdict.json").exists()


@pytest.mark.parametrize(("args", "said"), [
    (("events.csv", "--once"), "--once is for a training on what Kafka holds"), (("--announce",), "--announce is for a training on a file"),
    (("--user", "who"), "--user is for a training on a file"), (("nothing.csv",), "not a file that can be read"), (("--json",), "--json is for --once")])
def test_what_makes_no_sense_is_one_sentence(args: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *args]) == 1 and said in capsys.readouterr().err


@pytest.mark.parametrize(("users", "said"), [(1, "of 1 users"), (15, "needs 20 users")])
def test_too_small_a_file_is_said_and_leaves_nothing_begun(settings: Settings, tmp_path: Path, users: int, said: str) -> None:
    with pytest.raises(TooLittle, match=said):
        train_recorded(settings, log_of(tmp_path / "events.jsonl", events(7, users)))
    assert not (tmp_path / "trainer" / FOLDER / "job").exists() and not (tmp_path / "models").exists()


def test_two_at_once(settings: Settings, tmp_path: Path) -> None:
    log = log_of(tmp_path / "events.jsonl", events(1, 150))
    with _alone(tmp_path / "trainer" / FOLDER):
        with pytest.raises(TrainerError, match="another training on a recorded log is at work"):
            train_recorded(settings, log)

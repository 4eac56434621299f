"""The demo, short: a few weeks of a few households through real servers; nothing it started is left, however it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from consumers import demo
from infra.settings import Settings
from infra.stack import LocalStack

ROOT = Path(__file__).parent.parent.parent
SMALL = {"weeks": 2, "households": 80}
STEPS_DEADLINE_S = 90.0  # servers, conversion of the data, workers that compile
END_DEADLINE_S = 30.0  # workers stop within 5 s, the broker within 20
RELEASE_DEADLINE_S = 240.0  # a training of seconds at the lowest priority, on a machine that has other things to do


def running_workers() -> set[int]:
    """Workers on this machine that tests started (they inherit this run's id or are our children)."""
    return {child.pid for child in psutil.Process().children(recursive=True) if "worker" in child.cmdline()}


def test_the_demo_ends_by_itself_twice(stack: LocalStack, namespace: Callable[..., Settings],
                                       redis_client: Callable[[Settings], redis.Redis],
                                       capsys: pytest.CaptureFixture[str]) -> None:
    """The second run begins afresh: no list, row or event of the first is in its figures."""
    settings, before = namespace(), running_workers()
    counted = []
    for _ in range(2):
        assert demo.run(settings, stack=stack, light=True, scale=demo.Scale(**SMALL, speed_up=250_000)) == 0
        said = capsys.readouterr().out
        assert "no release is trained beside it: this is the light demo" in said
        absorbed, sent = (int(text.replace(",", "")) for text in re.findall(r"([\d,]+) events absorbed of ([\d,]+) sent", said)[0])
        assert absorbed == sent > 500
        assert "0 rejected, 0 double" in said
        assert re.search(r"hit@10 .*\d+\.\d% \(\d+\.\d% to \d+\.\d%\)", said) and "Household" in said and "bought" in said
        assert re.search(r"basket sent until its list was read: p50 \d+ ms", said)
        assert running_workers() == before and stack.running, "what ran before is left as it was"
        counted.append(sent)
    assert counted[0] == counted[1]
    assert f"export STREAMREC_PREFIX='{settings.prefix}demo.'" in said.replace(" STREAMREC_PARTITIONS='4'", "")
    client = redis_client(settings)
    assert len(client.keys(f"{settings.prefix}demo.rec:*")) > 30
    assert not client.keys(f"{settings.prefix}demo.workers:*"), "the workers said good-bye"


def test_a_release_is_trained_beside_it_and_swapped_in(stack: LocalStack, namespace: Callable[..., Settings], redis_client: Callable[[Settings], redis.Redis],
                                                       capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    settings, before = namespace(train_model="d=8,epochs=0.1"), running_workers()
    scale = demo.Scale(weeks=4, households=120, speed_up=30_000, patience_s=RELEASE_DEADLINE_S)
    assert demo.run(settings, stack=stack, scale=scale) == 0
    said = capsys.readouterr().out
    (version,) = re.findall(r"^release: (\S+) is swapped into all 2 workers, trained beside them in \d+ s;", said, re.MULTILINE)
    assert "model: learned online; a release is being trained: " in said and "models list    # the release that was trained" in said
    assert re.search(rf"release +{version} is swapped into all 2 workers", said)
    assert "the demo promoted it by hand" in said, "so little learning does not pass the gate"
    assert running_workers() == before
    assert len(redis_client(settings).keys(f"{settings.prefix}demo.rec:*")) > 30


def test_a_demo_that_is_ended_leaves_nothing(tmp_path: Path, jars_home: Path, wait_until: Callable[..., Any]) -> None:
    """Ended in the midst of the live week: its workers and its servers are gone, and so is their note.

    By SIGTERM, which the demo turns into what Ctrl-C does, so both ways are gone.
    """
    play = ("from infra.settings import Settings; from infra.stack import LocalStack; from consumers import demo; from pathlib import Path\n"
            f"stack = LocalStack(Path({str(tmp_path)!r}), jars_home=Path({str(jars_home)!r}), die_with_parent=True)\n"
            f"demo.run(Settings(), stack=stack, keep=True, scale=demo.Scale(**{SMALL!r}, speed_up=3_000))\n")
    log_file = tmp_path / "demo.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen([sys.executable, "-c", play], cwd=ROOT, stdout=log, stderr=log,
                                   env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        wait_until(lambda: "hit@10" in log_file.read_text() or process.poll() is not None, STEPS_DEADLINE_S, "the live week begins")
        assert process.poll() is None, log_file.read_text()
        note = json.loads((tmp_path / "stack.json").read_text())
        family = [psutil.Process(note[name]["pid"]) for name in ("kafka", "redis")]
        family += [child for child in psutil.Process(process.pid).children(recursive=True) if {"worker", "train"} & set(child.cmdline())]
        assert len(family) in (4, 5), "two servers, two workers, and the training where there is one and it goes on"
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: not all(one.is_running() for one in family), END_DEADLINE_S, "the workers end")
        process.send_signal(signal.SIGINT)  # somebody who cannot wait must not leave a server behind
        process.wait(END_DEADLINE_S)
        _, alive = psutil.wait_procs(family, timeout=2.0)
        assert not alive, log_file.read_text()
        assert not (tmp_path / "stack.json").exists()
        assert "How to look further" not in log_file.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()

"""The command line without servers: every verb has help with an example, every mistake ends in one sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.cli.options import VERBS

ROOT = Path(__file__).parent.parent.parent
NOWHERE = {"STREAMREC_KAFKA_BOOTSTRAP": "127.0.0.1:1", "STREAMREC_REDIS_URL": "redis://:hush@127.0.0.1:1/0"}
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def streamrec(tmp_path: Path) -> Run:
    """Runs the command as a user does, with no stack and no settings but the given ones."""

    def run(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("STREAMREC_")}
        return subprocess.run([sys.executable, "-m", "infra.cli", *args], capture_output=True, text=True, timeout=60,
                              cwd=ROOT, env={**inherited, "STREAMREC_HOME": str(tmp_path), **env})

    return run


def one_sentence(done: subprocess.CompletedProcess[str]) -> str:
    """stderr, which must be one line, no traceback, no secret; the exit code must say failure."""
    assert done.returncode not in (0, None), done.stdout
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "Traceback" not in done.stderr and "hush" not in done.stderr + done.stdout
    return done.stderr.strip()


@pytest.mark.parametrize("verb", [verb.name for verb in VERBS])
def test_every_verb_has_help_with_an_example(streamrec: Run, verb: str) -> None:
    done = streamrec(verb, "--help")
    assert done.returncode == 0
    assert f"example:\n  streamrec {verb}" in done.stdout


def test_the_verbs_of_the_readme_are_there() -> None:
    assert {"up", "down", "status", "worker", "import", "lookup", "demo", "bench"} <= {verb.name for verb in VERBS}


@pytest.mark.parametrize(("args", "said"), [
    (("frobnicate",), "there is no verb 'frobnicate'"),
    (("statsu",), "did you mean `status`?"),
    (("prefix=x.", "status"), "options go behind the verb"),
    ((), "required: VERB"),
    (("up", "--kafka-prot", "3"), "unrecognized arguments"),
    (("up", "--kafka-port", "99999"), "99999 is no port"),
    (("lookup",), "required: USER"),
    (("lookup", "u1", "-n", "many"), "is no whole number"),
    (("settings", "--set", "partitions"), "expected NAME=VALUE"),
    (("settings", "--set", "partition=3"), "the nearest is partitions"),
    (("bench", "nothing-of-that-name"), "no benchmark"),
])
def test_wrong_options(streamrec: Run, args: tuple[str, ...], said: str) -> None:
    assert said in one_sentence(streamrec(*args))


@pytest.mark.parametrize("args", [("status",), ("status", "--json"), ("lookup", "u1"), ("import", __file__ + ".csv")])
def test_missing_servers_or_files(streamrec: Run, args: tuple[str, ...]) -> None:
    one_sentence(streamrec(*args, **NOWHERE))


def test_a_wrong_variable_is_named(streamrec: Run) -> None:
    assert "nearest is STREAMREC_PREFIX" in one_sentence(streamrec("status", STREAMREC_PREFX="x"))


def test_up_refuses_where_settings_lead_elsewhere(streamrec: Run) -> None:
    assert "leads to a server that is not this machine's" in one_sentence(streamrec("up", STREAMREC_KAFKA_BOOTSTRAP="far:9092"))


def test_up_says_what_is_missing(streamrec: Run, tmp_path: Path) -> None:
    said = one_sentence(streamrec("up", PATH=str(tmp_path)))
    assert "Java" in said and "Maven" in said and "install" in said


def test_down_with_nothing_running(streamrec: Run) -> None:
    done = streamrec("down")
    assert (done.returncode, done.stdout.strip()) == (0, "nothing was running")


def test_settings_are_listed_without_secrets(streamrec: Run) -> None:
    done = streamrec("settings", **NOWHERE)
    assert done.returncode == 0 and "STREAMREC_PARTITIONS=8" in done.stdout and "hush" not in done.stdout


@pytest.mark.parametrize("room", ["importer", "erasing", "redrive", "dead_letters", "producer", "reader"])
def test_commands_that_only_speak_with_servers_import_no_kernels(room: str) -> None:
    code = f"import sys, consumers.{room}; print([name for name in ('numba', 'faust', 'pyarrow') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_help_is_quick_because_nothing_heavy_is_imported() -> None:
    heavy = ("numpy", "numba", "faust", "aiokafka", "redis", "pandas", "rich", "aiohttp", "streams", "consumers")
    code = f"import sys; from infra.cli.entry import parser; parser(); print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"

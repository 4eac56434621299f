"""Log lines: one an event, whatever it says; as JSON each is one object that a program can group by its kind."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from infra.logs import JsonLine, TextLine
from infra.settings import Settings, SettingsError

ROOT = Path(__file__).parent.parent.parent


def record(message: str, *args: object, error: BaseException | None = None) -> logging.LogRecord:
    info = (type(error), error, error.__traceback__) if error else None
    return logging.LogRecord("streams.x", logging.WARNING, "x.py", 1, message, args, info)


@pytest.mark.parametrize("formatter", [TextLine(), JsonLine()])
def test_what_is_told_stays_on_one_line(formatter: logging.Formatter) -> None:
    line = formatter.format(record("topic %s says %r", "a\nERROR forged", "b\u2028c\r"))
    assert len(line.splitlines()) == 1 and "WARNING" in line


def test_json_has_the_values_and_the_kind() -> None:
    told = json.loads(JsonLine().format(record("partitions %s are ours", [1, 2])))
    assert told["message"] == "partitions [1, 2] are ours" and told["event"] == "partitions %s are ours"
    assert (told["level"], told["logger"]) == ("WARNING", "streams.x") and told["time"].endswith("Z") and told["process"] is not None
    assert "error" not in told


def test_a_failure_brings_its_trace() -> None:
    try:
        raise ValueError("a\nb")
    except ValueError as error:
        failed = record("stopped", error=error)
    told = json.loads(JsonLine().format(failed))
    assert told["error"] == "ValueError: a\nb" and "test_logs.py" in told["trace"]
    first, *rest = TextLine().format(failed).splitlines()
    assert first.endswith("stopped") and len(rest) > 2 and all(line.startswith("  ") for line in rest)


@pytest.mark.parametrize("verb", ["worker", "train"])
def test_the_option_is_the_setting(verb: str) -> None:
    def run(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "infra.cli", verb, *args], capture_output=True, text=True, timeout=60, cwd=ROOT)

    assert "--log-format {text,json}" in " ".join(run("--help").stdout.split())
    assert "invalid choice: 'xml'" in run("--log-format", "xml").stderr
    with pytest.raises(SettingsError, match="log_format is 'xml'"):
        Settings.load({}, log_format="xml")

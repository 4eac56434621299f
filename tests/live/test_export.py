"""Events exported to Parquet: all that are valid, once, and those that came since with the next export."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from consumers.event_log import EventLog
from infra.settings import Settings
from tests.live.equality import read_log
from tests.live.generations import command, start
from tests.live.load import Events, send


def places(folder: Path) -> list[tuple[int, int]]:
    with EventLog(folder).snapshot() as log:
        return sorted((part.partition, offset) for part in log.parts(["offset"], unique=False) for offset in part.table.column("offset").to_pylist())


def test_exported_killed_and_gone_on_with(namespace: Callable[..., Settings], tmp_path: Path) -> None:
    settings = namespace()
    events, folder = Events(settings, seed=51, users=50), tmp_path / "events"
    send(settings, events, 1_500)
    first = json.loads(command(settings, tmp_path, "export", str(folder), "--json"))
    assert first["added"] == first["rows"] == 1_500 and sum(first["ends"].values()) == 1_500
    send(settings, events, 2_000)
    killed = start(settings, tmp_path, "export", str(folder))
    killed.kill()
    killed.wait()
    again = json.loads(command(settings, tmp_path, "export", str(folder), "--json"))
    assert again["rows"] == 3_500
    assert places(folder) == sorted((p, record.offset) for p, records in read_log(settings).items() for record in records)
    assert "0 events added" in command(settings, tmp_path, "export", str(folder))

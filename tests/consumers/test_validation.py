"""What validate finds, with nothing running: the import's findings on rows, the workers' on messages, each with its place."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest

from consumers.tables import TableError
from consumers.validation import ValidationError, validate_file, validate_messages, validate_topic
from infra.settings import Settings
from tests.live.bad_events import kinds

HEAD = "user,item,time,type\n"


def test_rows_are_judged_as_the_import_would(tmp_path: Path) -> None:
    path = tmp_path / "shop.csv"
    path.write_text(HEAD + "u1,i1,2024-01-01,view\nu1,i1,yesterday,view\n,i1,2024-01-01,view\nu1,i1,tomorrow,view\nu1,i1,2024-01-01,stare\n")
    found = validate_file(Settings(), path)
    assert (found.checked, found.accepted, found.rejected) == (5, 1, {"timestamp": 2, "id": 1, "event_type": 1})
    assert [example.partition(":")[0] for example in found.examples["timestamp"]] == ["row 2", "row 4"]
    assert validate_file(Settings(), path, limit=2).rejected == {"timestamp": 1}


def test_a_file_of_items(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text('{"item_id":"i1","hidden":true}\n{"item_id":"","title":"x"}\n{"item_id":"i2","expires_at":"soon"}\n')
    found = validate_file(Settings(), path, kind="items")
    assert (found.accepted, found.rejected) == (1, {"id": 1, "timestamp": 1})


def test_messages_are_judged_as_workers_do(tmp_path: Path) -> None:
    """Every kind of bad event that fits into a line, with the reason that its dead letter would give."""
    bad = [(reason, value) for reason, value in kinds(random.Random(3)) if value and b"\n" not in value and not value.endswith(b"\r")]
    good = json.dumps({"event_id": "e", "user_id": "u", "item_id": "i", "event_type": "view", "timestamp": "2025-01-01"}).encode()
    lines = [good, *(value for _, value in bad), b"", good]
    path = tmp_path / "messages"
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    found = validate_messages(Settings(), path)
    assert found.rejected == Counter(reason for reason, _ in bad)
    assert (found.checked, found.accepted, found.moved) == (len(lines), 2, 0)
    first = next(k for k, (reason, _) in enumerate(bad) if reason == "version")
    assert found.examples["version"][0].startswith(f"line {first + 2}: schema_version 2")
    assert all(len(examples) <= 3 for examples in found.examples.values())


def test_what_cannot_be_checked_is_said(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="is not a file"):
        validate_messages(Settings(), tmp_path / "none")
    with pytest.raises(ValidationError, match="neither events nor items"):
        validate_topic(Settings(), "lessons")

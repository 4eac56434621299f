"""Imports into a real Kafka: killed with -9 and gone on with, done twice, into a topic made anew; every row once."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from consumers.importer import run_import
from consumers.producer import KafkaUnreachable, Producer
from consumers.progress import ImportBusy, NoteFile
from infra.settings import Settings
from infra.topics import ensure_topics
from streams.catalogue import decode_item
from streams.events import decode_event
from tests.live.reading import read_all

ROWS = 120_000
USERS = 3  # so that any overlap is far longer than the 64 events within which a worker recognises a repetition
KILLS = 6
DEADLINE_S = 60

SCRIPT = """
import sys
from pathlib import Path
import consumers.tables
consumers.tables.CHUNK_ROWS = 1000
from consumers.importer import run_import
from infra.settings import Settings
report = run_import(Settings.load(), sys.argv[1], home=Path(sys.argv[2]), progress=lambda p: print(p.rows, flush=True))
print("done", report.rows, report.already_sent, flush=True)
"""


@pytest.fixture
def events_csv(tmp_path: Path) -> Path:
    path = tmp_path / "events.csv"
    with path.open("w") as file:
        file.write("user,item,timestamp\n")
        file.writelines(f"u{i % USERS},i{i % 97},{1_700_000_000_000 + i}\n" for i in range(ROWS))
    return path


def start_import(settings: Settings, path: Path, home: Path) -> subprocess.Popen[str]:
    env = {"STREAMREC_KAFKA_BOOTSTRAP": settings.kafka_bootstrap, "STREAMREC_PREFIX": settings.prefix, "PYTHONPATH": ":".join(sys.path),
           "STREAMREC_HOME": str(home)}
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(path), str(home)], env=env, stdout=subprocess.PIPE, text=True)


def rows_in_kafka(settings: Settings) -> list[int]:
    """Row numbers, after checking that each partition has them in the order of the file."""
    by_partition: dict[int, list[int]] = {}
    for record in sorted(asyncio.run(read_all(settings)), key=lambda r: (r.partition, r.offset)):
        event_id = decode_event(record.value).event_id
        if ":" in event_id:
            by_partition.setdefault(record.partition, []).append(int(event_id.partition(":")[2]))
    for rows in by_partition.values():
        assert rows == sorted(rows)
    return sorted(row for rows in by_partition.values() for row in rows)


def test_killed_and_gone_on_with_every_row_is_there_once(namespace: Callable[..., Settings], events_csv: Path, tmp_path: Path) -> None:
    settings = namespace()
    chance = random.Random(7)
    old_notes: list[tuple[Path, bytes]] = []
    for kill in range(KILLS + 1):
        process = start_import(settings, events_csv, tmp_path)
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if kill < KILLS and len(said) == 10:  # time for some ten chunks more, of which some are on their way
                time.sleep(chance.random() * 0.1)
                process.kill()
                break
        process.wait(DEADLINE_S)
        process.stdout.close()
        notes = [(path, path.read_bytes()) for path in (tmp_path / "imports").glob("*.json")]
        if kill == 2:
            old_notes = notes
        if kill == 4:  # a note that is older than the truth, as after a power cut, only makes for more reading
            for path, content in old_notes:
                path.write_bytes(content)
    assert said[-1].startswith(f"done {ROWS} ")
    assert rows_in_kafka(settings) == list(range(ROWS))


def test_a_note_long_out_of_date_is_exact_too(namespace: Callable[..., Settings], events_csv: Path, tmp_path: Path) -> None:
    settings = namespace()
    first = run_import(settings, events_csv, limit=5000, home=tmp_path)
    assert (first.rows, first.accepted, first.resumed_from) == (5000, 5000, 0)
    (note,) = (tmp_path / "imports").glob("*.json")
    old = note.read_bytes()
    run_import(settings, events_csv, limit=30_000, home=tmp_path)

    async def others() -> None:
        async with Producer(settings) as producer:
            for i in range(100):
                await producer.send(user_id=f"u{i}", item_id="i", event_type="view")

    asyncio.run(others())
    note.write_bytes(old)
    last = run_import(settings, events_csv, home=tmp_path)
    assert (last.resumed_from, last.already_sent, last.rows, last.accepted) == (5000, 25_000, ROWS, ROWS)
    assert rows_in_kafka(settings) == list(range(ROWS))


def test_twice_is_once_and_again_is_asked_for(namespace: Callable[..., Settings], tmp_path: Path) -> None:
    settings = namespace()
    path = tmp_path / "e.jsonl"
    path.write_text("".join(f'{{"user":"u{i}","item":"i","ts":{1_700_000_000 + i}}}\n' for i in range(50)) + "{broken\n")
    progress: list[Any] = []
    report = run_import(settings, path, event_type_default="view", home=tmp_path, progress=progress.append)
    assert (report.accepted, report.rejected, report.rows) == (50, {"json": 1}, 51)
    assert report.examples["json"][0].startswith("row 51: not valid JSON")
    assert (progress[-1].rows, progress[-1].rejected, progress[-1].fraction) == (51, 1, 1.0)
    path.rename(tmp_path / "other.jsonl")  # another name is no other file
    again = run_import(settings, tmp_path / "other.jsonl", event_type_default="view", home=tmp_path)
    assert (again.resumed_from, again.accepted, again.rejected) == (51, 50, {"json": 1})
    assert len(asyncio.run(read_all(settings))) == 50
    forced = run_import(settings, tmp_path / "other.jsonl", event_type_default="view", home=tmp_path, resume=False)
    assert forced.resumed_from == 0
    records = asyncio.run(read_all(settings))
    assert len(records) == 100 and len({decode_event(r.value).event_id for r in records}) == 50


def test_a_topic_made_anew_is_noticed(namespace: Callable[..., Settings], tmp_path: Path) -> None:
    settings = namespace()
    path = tmp_path / "e.csv"
    path.write_text("user,item,time\n" + "".join(f"u{i},i,2025-01-01\n" for i in range(40)))
    run_import(settings, path, home=tmp_path)

    async def make_anew() -> None:
        admin = AIOKafkaAdminClient(**settings.kafka_client_args())
        await admin.start()
        await admin.delete_topics([settings.topic("events")])
        await admin.close()
        async with asyncio.timeout(DEADLINE_S):
            while settings.topic("events") not in await ensure_topics(settings):
                await asyncio.sleep(0.1)
        async with Producer(settings) as producer:  # longer than it was: only the event at the noted place tells
            for i in range(200):
                await producer.send(user_id=f"u{i}", item_id="i", event_type="view")

    asyncio.run(make_anew())
    report = run_import(settings, path, home=tmp_path)
    assert (report.resumed_from, report.accepted) == (0, 40)
    assert rows_in_kafka(settings) == list(range(40))


def test_items(namespace: Callable[..., Settings], tmp_path: Path) -> None:
    settings = namespace()
    path = tmp_path / "items.csv"
    path.write_text("item_id,title,hidden\n" + "".join(f"i{i},Tea {i},{i % 2}\n" for i in range(500)))
    report = run_import(settings, path, kind="items", home=tmp_path)
    assert (report.accepted, report.rejected) == (500, {})
    items = dict(decode_item(r.key, r.value) for r in asyncio.run(read_all(settings, "items")))
    assert len(items) == 500 and items["i3"].title == "Tea 3" and items["i3"].hidden  # type: ignore[union-attr]


def test_one_import_of_a_file_at_a_time(namespace: Callable[..., Settings], tmp_path: Path) -> None:
    settings = namespace()
    path = tmp_path / "e.csv"
    path.write_text("user,item,time\nu,i,2025-01-01\n")
    run_import(settings, path, home=tmp_path)
    (note,) = (tmp_path / "imports").glob("*.json")
    fingerprint = note.name.split(".")[0]
    with NoteFile(fingerprint, settings.topic("events"), tmp_path).locked(), pytest.raises(ImportBusy):
        run_import(settings, path, home=tmp_path)


def test_a_broker_that_goes_and_comes_back_costs_time_only(own_stack: Callable[[], Any], namespace: Callable[..., Settings],
                                                          events_csv: Path, tmp_path: Path) -> None:
    servers = own_stack()
    settings = namespace(servers)
    began = threading.Event()
    with ThreadPoolExecutor(1) as pool:  # servers are restarted from the main thread: they end with the thread that began them
        importing = pool.submit(run_import, settings, events_csv, home=tmp_path, progress=lambda _: began.set())
        assert began.wait(DEADLINE_S)
        servers.kafka.stop()
        servers.kafka.start()
        report = importing.result(DEADLINE_S)
    assert report.accepted == ROWS
    assert rows_in_kafka(settings) == list(range(ROWS))


def test_no_broker_is_one_clear_sentence(tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    path.write_text("user,item,time\nu,i,2025-01-01\n")
    settings = Settings.load(env={"STREAMREC_HOME": str(tmp_path)}, kafka_bootstrap="127.0.0.1:1")
    with pytest.raises(KafkaUnreachable, match="127.0.0.1:1 did not answer"):
        run_import(settings, path, home=tmp_path)

"""`streamrec dlq`: what was rejected and why, and corrected events in the place of what was rejected.

The object that `list --json` prints: letters, redriven, reasons {reason: {n, redriven, first_ms, last_ms, key, detail}}. A line of `show --json`,
which `redrive` reads back: key, reason, detail, topic, partition, offset, appended_at, is_cut, redriven (where what was sent lies, or null), event
(the message: what JSON it is, or its text).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.settings import Settings, StreamrecError

if TYPE_CHECKING:
    from consumers.dead_letters import Box, Head, Letter

SHOWN = 20
DETAIL_CHARS = 100


class LettersError(StreamrecError):
    """What is asked of dead letters makes no sense."""


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Carries out one action; redrive: exit code 1 where one was refused."""
    from infra.topics import ensure_topics

    asyncio.run(ensure_topics(settings))
    return {"list": _list, "show": _show, "redrive": _redrive}[args.action](args, settings)


def _chosen(args: argparse.Namespace) -> Any:
    since, until = (moment_ms(name, text) if (text := getattr(args, name)) else default for name, default in (("since", 0), ("until", 1 << 62)))
    keys = set(args.what)
    return lambda key, letter: ((not keys or key in keys) and since <= letter.appended_at <= until
                                and (args.reason is None or letter.reason == args.reason))


def moment_ms(option: str, text: str) -> int:
    """Epoch ms of a moment (ISO-8601 or epoch), or of so long ago (2h, 7d)."""
    from consumers.columns import time_ms
    from infra.cli.backtest import span_ms

    found = time_ms(text)
    if isinstance(found, int):
        return found
    try:
        return time.time_ns() // 1_000_000 - span_ms(option, text)
    except StreamrecError:
        raise LettersError(f"--{option} {text!r} is no moment; expected ISO-8601, epoch seconds, or how long ago, such as 2h or 7d") from None


def _list(args: argparse.Namespace, settings: Settings) -> int:
    from consumers.dead_letters import Head, read_box

    report = summary(asyncio.run(read_box(settings, Head, _chosen(args))))
    if args.json:
        print(json.dumps(report))
        return 0
    from rich.table import Table

    from infra.cli.console import stdout_console

    console = stdout_console()
    console.print(f"{report['letters']:,} dead letters, {report['redriven']:,} of them redriven")
    if report["reasons"]:
        table = Table("reason", "letters", "redriven", "first", "last", "such as", box=None, padding=(0, 2, 0, 0))
        for reason, told in sorted(report["reasons"].items(), key=lambda entry: -entry[1]["n"]):
            table.add_row(reason, f"{told['n']:,}", f"{told['redriven']:,}", when(told["first_ms"]), when(told["last_ms"]),
                          f"{told['key']}: {told['detail'][:DETAIL_CHARS]}".replace("[", "\\["))
        console.print(table)
    return 0


def summary(box: Box[Head]) -> dict[str, Any]:
    """What `list --json` prints."""
    reasons: dict[str, dict[str, Any]] = {}
    for key, letter in box.letters.items():
        told = reasons.setdefault(letter.reason, {"n": 0, "redriven": 0, "first_ms": letter.appended_at, "last_ms": letter.appended_at})
        told["n"] += 1
        told["redriven"] += box.is_redriven(key)
        told["first_ms"] = min(told["first_ms"], letter.appended_at)
        if letter.appended_at >= told["last_ms"]:
            told |= {"last_ms": letter.appended_at, "key": key, "detail": letter.detail}
    return {"letters": len(box.letters), "redriven": sum(told["redriven"] for told in reasons.values()), "reasons": reasons}


def _show(args: argparse.Namespace, settings: Settings) -> int:
    from consumers.dead_letters import Letter, read_box

    box = asyncio.run(read_box(settings, Letter, _chosen(args)))
    if missing := [key for key in args.what if key not in box.letters]:
        raise LettersError(f"there is no dead letter {missing[0]!r}; a key is topic/partition/offset, such as {settings.topic('events')}/3/17")
    keys = sorted(box.letters, key=lambda key: (box.letters[key].appended_at, key))
    for key in keys if args.all or args.what else keys[-args.n :]:
        line = as_line(box, key)
        if args.json:
            print(json.dumps(line))
        else:
            print(f"{key}  {when(line['appended_at'])}  {line['reason']}: {line['detail']}"
                  + (f"\n    redriven: {line['redriven']}" if line["redriven"] else "") + f"\n    {box.letters[key].payload[:2_000]}")
    return 0


def as_line(box: Box[Letter], key: str) -> dict[str, Any]:
    """A line of `show --json`."""
    letter, note = box.letters[key], box.note_of(key)
    try:
        event = json.loads(letter.data)
    except (ValueError, RecursionError):
        event = letter.payload
    return {"key": key, "reason": letter.reason, "detail": letter.detail, "topic": letter.topic, "partition": letter.partition,
            "offset": letter.offset, "appended_at": letter.appended_at, "is_cut": letter.is_cut,
            "redriven": f"{note.topic}/{note.partition}/{note.offset}" if note is not None and note.offset is not None else None, "event": event}


def _redrive(args: argparse.Namespace, settings: Settings) -> int:
    from consumers.dead_letters import Head, read_box
    from consumers.redrive import redrive

    wanted: dict[str, bytes | None] = {}
    for what in args.what:
        if Path(what).is_file():
            wanted |= corrected(Path(what))
        else:
            wanted[what] = None
    if args.reason or args.since or args.until:
        if args.what:
            raise LettersError("redrive takes files and keys, or --reason, --since and --until, not both")
        wanted = dict.fromkeys(asyncio.run(read_box(settings, Head, _chosen(args))).letters)
    elif not args.what:
        raise LettersError("`streamrec dlq redrive` needs a file of corrected letters, keys, or --reason; `streamrec dlq show --json` writes such a file")
    if not wanted:
        print("nothing to redrive")
        return 0
    done = asyncio.run(redrive(settings, wanted))
    if args.json:
        print(json.dumps({"sent": done.sent, "already": done.already, "refused": done.refused}))
    else:
        print(f"{len(done.sent):,} sent, {len(done.already):,} had been sent before, {len(done.refused):,} refused")
        for key, why in list(done.refused.items())[:SHOWN]:
            print(f"  {key}: {why}")
    return 1 if done.refused else 0


def corrected(path: Path) -> dict[str, bytes | None]:
    """Messages by key of the letter, from the lines of a file; None: as the letter has it."""
    found: dict[str, bytes | None] = {}
    for number, text in enumerate(path.read_text().splitlines(), 1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
            key, event = line["key"], line.get("event")
        except (ValueError, KeyError, TypeError, AttributeError):
            raise LettersError(f"{path} line {number} is no corrected letter; expected {{\"key\": \"events/3/17\", \"event\": {{...}}}}, as `streamrec "
                               "dlq show --json` prints it") from None
        found[key] = None if event is None else event.encode() if isinstance(event, str) else json.dumps(event).encode()
    return found


def when(ms: int) -> str:
    """A moment for people, UTC."""
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S}"

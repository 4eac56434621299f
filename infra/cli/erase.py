"""`streamrec erase`: has a user forgotten, or looks what is left of him.

Exit codes of `--verify`: 0 nothing is left; 3 only what Kafka's retention removes by the date that is printed; 1 something else too.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from infra.settings import Settings

if TYPE_CHECKING:
    from consumers.remains import Remains

ONLY_KAFKA = 3


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Erases, or verifies."""
    return _verify(args, settings) if args.verify else _erase(args, settings)


def _erase(args: argparse.Namespace, settings: Settings) -> int:
    from consumers.erasing import erase
    from infra.topics import ensure_topics

    asyncio.run(ensure_topics(settings))
    print(f"waiting until workers have forgotten him, {args.wait:g} s at most", file=sys.stderr)
    done = asyncio.run(erase(settings, args.user, wait_s=args.wait))
    if args.json:
        print(json.dumps(dataclasses.asdict(done)))
        return 0
    print(f"{args.user} is erased: what was sent of him before {settings.topic('events')}/{done.partition}/{done.offset} is passed over from now on; his row, "
          f"list and vector are gone, and {done.n_letters:,} dead letters")
    if not done.known:
        print(f"there was no row of {args.user}: either none of his events had been absorbed yet, or the id is another")
    print("his rows in the event log go at its next compaction; `streamrec erase --verify` says what Kafka still holds, and until when")
    if not settings.erasure_key:
        print("STREAMREC_ERASURE_KEY is not set: whoever may read the topic erasures can try ids against it")
    return 0


def _verify(args: argparse.Namespace, settings: Settings) -> int:
    from consumers.remains import look

    found = asyncio.run(look(settings, args.user))
    if args.json:
        print(json.dumps({**dataclasses.asdict(found), "exit_code": _code(found)}))
    else:
        show(found)
    return _code(found)


def _code(found: Remains) -> int:
    return 1 if found.other else ONLY_KAFKA if found.kafka else 0


def show(found: Remains) -> None:
    """Prints what is left, and where nothing could be looked for."""
    if found.erased_ms is None:
        print(f"{found.user} was never erased, as far as this key tells")
    else:
        print(f"{found.user} was erased at {_when(found.erased_ms)} UTC")
    for remain in found.other:
        print(f"left: {remain.where}: {remain.what}")
    for remain in found.kafka:
        until = f"gone by {_when(remain.until_ms)} UTC at the latest" if remain.until_ms else "gone at Kafka's next compaction of it"
        print(f"left in Kafka: {remain.where}: {remain.what}; {until}")
    for note in found.notes:
        print(note)
    if not found.other and not found.kafka:
        print("nothing is left of before")


def _when(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S}"

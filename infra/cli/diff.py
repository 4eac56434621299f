"""`streamrec diff`: how the lists of a shadow differ from the live ones, as tables or as one JSON object.

The object is a `Difference` of consumers/replay/diff.py.
"""

from __future__ import annotations

import argparse
import asyncio
import json

from infra.settings import Settings


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Compare, and print."""
    import msgspec

    from consumers.replay.diff import TOP, as_table, difference

    found = asyncio.run(difference(settings, args.one, args.other))
    if args.json:
        print(json.dumps(msgspec.to_builtins(found)))
        return 0
    from rich.table import Table

    from infra.cli.console import stdout_console

    console = stdout_console()
    said = [name if asked == name else f"{asked} ({name})" for asked, name in ((args.one, found.one.name), (args.other, found.other.name))]
    sides = Table("", *said, box=None, padding=(0, 2, 0, 0))
    for row in as_table(found):
        sides.add_row(*row)
    console.print(sides)
    if not found.compared:
        console.print("no user has a list in both")
        return 0
    assert found.overlap is not None
    rho = "" if found.correlation is None else f", rank correlation {found.correlation:.3f}"
    console.print(f"{found.compared:,} users have both: of {found.differing:,} the first {TOP} differ; overlap {found.overlap:.3f}{rho}")
    if found.newer:
        console.print(f"of {found.newer:,} one list knows later events than the other, so that part of the difference is theirs")
    moved = Table(f"users who keep least of their first {TOP}", "kept", "items that gained or lost most", "lists", box=None, padding=(0, 2, 0, 0))
    for k in range(max(len(found.users), len(found.items))):
        user = found.users[k] if k < len(found.users) else None
        item = found.items[k] if k < len(found.items) else None
        moved.add_row(*(("", "") if user is None else (user.id, f"{user.change:.0%}")), *(("", "") if item is None else (item.id, f"{item.change:+,.0f}")))
    console.print(moved)
    return 0

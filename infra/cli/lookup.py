"""`streamrec lookup`: one list, read as applications read it."""

from __future__ import annotations

import argparse
import json

from infra.settings import Settings


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Prints the list: rank, item, score, channel."""
    from consumers.reader import Reader

    with Reader(settings) as reader:
        found = reader.similar(args.user) if args.similar else reader.get(args.user)
    if args.json:
        import msgspec

        print(json.dumps(msgspec.to_builtins(found)))
        return 0

    from rich.table import Table

    from infra.cli.console import stdout_console

    console = stdout_console()
    if not found.items:
        what = f"nothing is known yet to go with item {args.user}" if args.similar else (
            f"{args.user} has no list and there is no popular one yet: no event has been absorbed under this prefix")
        console.print(what, highlight=False, markup=False)
        return 0
    age_ms = found.age_ms()
    title = f"with {args.user}" if args.similar else f"no list for {args.user}, so what is popular" if found.fallback else args.user
    table = Table(title=f"{title}, {len(found.items)} {'item' if len(found.items) == 1 else 'items'}" + (f", computed {age_ms / 1000:.1f} s ago" if age_ms is not None else ""))
    table.add_column("#", justify="right")
    table.add_column("item", overflow="fold")
    table.add_column("score", justify="right")
    table.add_column("because of")
    for i, item in enumerate(found.items[:args.n]):
        score = f"{found.scores[i]:.4f}" if i < len(found.scores) else ""
        table.add_row(str(i + 1), item, score, found.reason(i))
    console.print(table)
    if len(found.items) > args.n:
        console.print(f"{len(found.items) - args.n} more: -n {len(found.items)}", highlight=False)
    return 0

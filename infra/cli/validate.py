"""`streamrec validate`: what would be rejected of a file or a topic, by reason, with the first examples and where they are."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

from infra.cli.options import COLUMN_ROLES
from infra.settings import Settings, StreamrecError

if TYPE_CHECKING:
    from consumers.validation import Findings

STEPS = 1_000  # of the progress bar


class OptionError(StreamrecError):
    """An option that says nothing of this source."""


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Exit code 0 where nothing would be rejected, else 1."""
    from consumers.validation import validate_file, validate_messages, validate_topic
    from infra.cli.console import progress_bar

    is_file = Path(args.source).exists() or "/" in args.source or args.messages
    columns = {role: name for role in COLUMN_ROLES if (name := getattr(args, f"column_{role}"))}
    if columns and (args.messages or not is_file):
        raise OptionError(f"{', '.join(f'--{role}' for role in columns)}: columns are for files as `streamrec import` takes them")
    with progress_bar() as bar:
        task = bar.add_task(args.source, total=STEPS)

        def advance(checked: int, fraction: float) -> None:
            bar.update(task, completed=round(fraction * STEPS), description=f"{checked:,} checked")

        if not is_file:
            found = validate_topic(settings, args.source, kind=args.kind, limit=args.limit, advance=advance)
        elif args.messages:
            found = validate_messages(settings, args.source, limit=args.limit, advance=advance)
        else:
            found = validate_file(settings, args.source, columns=columns, kind=args.kind or "events", format=args.format,
                                  event_type_default=args.default_type, limit=args.limit, advance=advance)
    if args.json:
        print(json.dumps({**dataclasses.asdict(found), "n_rejected": found.n_rejected}))
    else:
        show(found)
    return 1 if found.rejected else 0


def show(found: Findings) -> None:
    """Prints the counts, then the examples of each reason."""
    moved = "".join(f", {n:,} {what}" for n, what in (
        (found.moved, "in another partition than their user's (a worker would move them)"), (found.copies, "moved copies that count no second time"))
        if n)
    print(f"{found.source}: {found.checked:,} checked, {found.accepted:,} {found.kind} would be accepted, {found.n_rejected:,} rejected{moved}")
    for reason, n in sorted(found.rejected.items(), key=lambda entry: -entry[1]):
        print(f"  {reason}: {n:,}")
        for example in found.examples[reason]:
            print(f"    {example}")

"""`streamrec import`: a file of events or items into Kafka, with a progress bar and a count of what was rejected and why.

The module is not called `import`: Python keeps that word.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from infra.cli.options import COLUMN_ROLES
from infra.settings import Settings

if TYPE_CHECKING:
    from consumers.importer import ImportProgress, ImportReport

STEPS = 1000  # of the progress bar: the file's fraction is all that is known before its end


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Imports; exit code 0 also where rows were rejected (they are counted), 1 where none was accepted."""
    from consumers.importer import run_import
    from infra.cli.console import progress_bar

    columns = {role: getattr(args, f"column_{role}") for role in COLUMN_ROLES}
    with progress_bar() as bar:
        task = bar.add_task(args.file, total=STEPS)

        def advance(progress: ImportProgress) -> None:
            bar.update(task, completed=round(progress.fraction * STEPS),
                       description=f"{progress.accepted:,} sent, {progress.rejected:,} rejected")

        report = run_import(settings, args.file, columns={role: name for role, name in columns.items() if name}, kind=args.kind,
                            format=args.format, event_type_default=args.default_type, limit=args.limit,
                            resume=not args.restart, progress=advance)
    if args.json:
        import msgspec

        print(json.dumps(msgspec.to_builtins(report)))
    else:
        show(report)
    return 0 if report.accepted or not report.rows else 1


def show(report: ImportReport) -> None:
    """Prints what became of the file."""
    n_rejected = sum(report.rejected.values())
    print(f"{report.file}: {report.rows:,} rows, {report.accepted:,} {report.kind} accepted, {n_rejected:,} rejected"
          + (f"; {report.resumed_from:,} rows were done before" if report.resumed_from else "")
          + (f", {report.already_sent:,} more had been sent" if report.already_sent else ""))
    print(f"{report.seconds:.1f} s, {report.rows_per_s:,.0f} rows/s; columns: "
          + ", ".join(f"{role}={name}" for role, name in report.columns.items()))
    for reason, count in sorted(report.rejected.items(), key=_by_count):
        examples = "; ".join(report.examples.get(reason, []))
        print(f"  rejected {count:,}: {reason}" + (f" ({examples})" if examples else ""))
    if not report.accepted and report.rows:
        print(f"streamrec import: none of the {report.rows:,} rows could be used; see the reasons above", file=sys.stderr)


def _by_count(entry: tuple[str, Any]) -> Any:
    return -entry[1]

"""Where reports and tables are printed - a terminal as wide as it is, or a file or pipe of a fixed width - and how progress is shown."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

WIDTH = 160


def stdout_console(width: int = WIDTH) -> Console:
    """Of this process' stdout; `width` where that is no terminal."""
    found = Console(highlight=False)
    if not found.is_terminal:
        found.width = width
    return found


def progress_bar() -> Progress:
    """What, how far, and how long still, on stderr; nothing where that is no terminal, and nothing stays."""
    return Progress(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"), TimeRemainingColumn(),
                    console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True)

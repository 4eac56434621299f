"""Where reports and tables are printed: a terminal as wide as it is, or a file or pipe of a fixed width."""

from __future__ import annotations

from rich.console import Console

WIDTH = 160


def stdout_console(width: int = WIDTH) -> Console:
    """Of this process' stdout; `width` where that is no terminal."""
    found = Console(highlight=False)
    if not found.is_terminal:
        found.width = width
    return found

"""Where reports are printed: a terminal as wide as it is, or a log of a fixed width."""

from __future__ import annotations

from rich.console import Console

WIDTH = 100


def console() -> Console:
    """Of this process' stdout."""
    found = Console(highlight=False)
    if not found.is_terminal:
        found.width = WIDTH
    return found

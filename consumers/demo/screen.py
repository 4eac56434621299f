"""What is seen while the demo runs: a table that renews itself, or, where there is no terminal, a plain line now and then."""

from __future__ import annotations

import sys
import time
from types import TracebackType

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from consumers.demo.board import Board

FRAMES_PER_S = 4
LINE_S = 5.0
WIDTH = 140  # of tables in a log, where no terminal says


class Screen:
    """Shows a board; use it as a context manager and call `show` at will."""

    def __init__(self, board: Board, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        if not self.console.is_terminal:
            self.console.width = WIDTH
        self.board = board
        self._live = Live(console=self.console, refresh_per_second=FRAMES_PER_S, get_renderable=lambda: table(board),
                          transient=True) if self.console.is_terminal else None
        self._line_s = 0.0
        self._phase = ""

    def say(self, text: str) -> None:
        """One line that stays; above the table."""
        self.console.print(text, markup=False, soft_wrap=True)
        self._flush()

    def show(self) -> None:
        """Bring what is shown up to date; cheap enough to call often."""
        now = time.monotonic()
        if self._live is None and (now - self._line_s >= LINE_S or self.board.phase != self._phase):
            self._line_s, self._phase = now, self.board.phase
            self.console.print(line(self.board), markup=False, soft_wrap=True)
            self._flush()

    def _flush(self) -> None:
        if not self.console.is_terminal:
            sys.stdout.flush()  # a log that is read while it grows

    def __enter__(self) -> Screen:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live:
            self._live.stop()


def table(board: Board) -> Group:
    """The live table; fits into 80 columns."""
    grid = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    grid.add_column(justify="right", style="dim", no_wrap=True)
    grid.add_column(no_wrap=True)
    sample, rates, phase = board.sample, board.rates, board.phase_flow
    grid.add_row("phase", f"[bold]{board.phase}[/] {board.detail}, {time.monotonic() - board.began_s:.0f} s since the start")
    grid.add_row("events", f"{board.n_sent:,} sent, {sample.absorbed:,} absorbed, [bold]{rates.events_per_s:,.0f}/s[/]")
    grid.add_row("lists", f"{sample.lists:,} written, [bold]{rates.lists_per_s:,.0f}/s[/]")
    grid.add_row("lag", f"{sample.lag:,} events, {sample.dirty:,} users wait for a list")
    if board.model:
        grid.add_row("model", board.model)
    if len(board.hits):
        hits, (p50, p99) = board.hits, waited(board)
        grid.add_row("freshness", f"p50 [bold]{_ms(p50)}[/], p99 [bold]{_ms(p99)}[/], produce to list read from Redis")
        grid.add_row("", f"p50 {_ms(phase.p50_ms)}, p99 {_ms(phase.p99_ms)} in the workers' own metrics")
        grid.add_row("baskets", f"{len(hits):,}; an item of it stood among the first ten beforehand:")
        grid.add_row("hit@10", f"[bold green]{hits.share('streamrec'):.1%}[/] of the user's list")
        grid.add_row("", f"{hits.share('popular:all'):.1%} of popular:all, {hits.share('counts'):.1%} of plain decayed counts")
    return Group(grid, ProgressBar(total=1.0, completed=min(1.0, board.done), width=72))


def line(board: Board) -> str:
    """The same as one line."""
    sample, rates, phase = board.sample, board.rates, board.phase_flow
    text = (f"[{time.monotonic() - board.began_s:5.0f} s] {board.phase} {board.done:4.0%} {board.detail}: {rates.events_per_s:,.0f} events/s, "
            f"{rates.lists_per_s:,.0f} lists/s, lag {sample.lag:,}")
    if len(board.hits):
        p50, p99 = waited(board)
        text += (f", freshness {_ms(phase.p50_ms)}/{_ms(phase.p99_ms)} (seen from outside {_ms(p50)}/{_ms(p99)}), {len(board.hits):,} baskets, "
                 f"hit@10 {board.hits.share('streamrec'):.1%}, popularity {board.hits.share('popular:all'):.1%}/"
                 f"{board.hits.share('counts'):.1%}")
    if board.model:
        text += f", model: {board.model}"
    return text


def waited(board: Board) -> tuple[float | None, float | None]:
    """p50 and p99 of the waiting times seen from outside, in ms."""
    if not board.waited_ms:
        return None, None
    p50, p99 = np.quantile(board.waited_ms, (0.5, 0.99))
    return float(p50), float(p99)


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f} ms"

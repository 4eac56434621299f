"""What the demo says at the end: totals, rates, hit@10 with intervals, freshness, and how to look further."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from consumers.demo.board import Board
from consumers.demo.gauges import Flow, Sample
from consumers.demo.purchases import Purchases
from consumers.demo.scale import DAY_S
from consumers.demo.screen import waited
from consumers.demo.words import Line
from infra.settings import Settings
from infra.stack import LocalStack


@dataclass
class Figures:
    """What was measured, phase by phase."""

    seconds: dict[str, float] = field(default_factory=dict)
    backlog: Sample = field(default_factory=lambda: Sample(0.0))  # when it was worked off
    live: Flow = field(default_factory=Flow)
    worst_late_s: float = 0.0
    redis_bytes: int = 0


def show_summary(console: Console, board: Board, figures: Figures, purchases: Purchases, speed_up: float, release: str) -> None:
    """Totals, rates, quality, freshness; release: what became of the training beside it."""
    seconds, sample, hits = figures.seconds, board.sample, board.hits
    backlog_s = seconds["backlog"]
    days = (purchases.last_ms - purchases.live_ms) / 1000 / DAY_S
    grid = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    grid.add_column(justify="right", style="dim", no_wrap=True)
    grid.add_column()
    grid.add_row("backlog", f"{purchases.n_backlog:,} purchases of {purchases.n_households:,} households: every row and list in Redis after "
                            f"{backlog_s:.1f} s, {purchases.n_backlog / backlog_s:,.0f} events/s ({figures.backlog.lists:,} lists; "
                            f"sending took {seconds['import']:.1f} s of it)")
    grid.add_row("live", f"{board.n_sent - purchases.n_backlog:,} purchases in {len(hits):,} baskets, {days:.1f} days in {seconds['live']:.0f} s: "
                         f"{speed_up:,.0f} times their own speed; {figures.live.events_per_s:,.0f} events/s, "
                         f"{figures.live.lists_per_s:,.0f} lists/s")
    p50, p99 = waited(board)
    if p50 is not None and p99 is not None:
        grid.add_row("freshness", f"basket sent until its list was read: p50 {p50:.0f} ms, p99 {p99:.0f} ms, seen from outside; append to list in "
                                  f"the workers' own metrics: p50 {figures.live.p50_ms or 0:.0f} ms, p99 {figures.live.p99_ms or 0:.0f} ms")
    grid.add_row("hit@10", f"[bold]{hits.interval('streamrec')}[/] of the baskets had an item of the ten that led the household's list before "
                           "the basket came")
    grid.add_row("popularity", f"{hits.interval('popular:all')} for the list of users without one (popular:all), {hits.interval('counts')} for plain "
                               "decayed counts, each as of the same moment")
    grid.add_row("", f"more than plain counts by {hits.difference('streamrec', 'counts')}; of all things bought {hits.found('streamrec'):.1%} stood "
                     f"among the ten, with plain counts {hits.found('counts'):.1%}")
    counted = (f"{sample.absorbed:,} events absorbed of {board.n_sent:,} sent, {sample.rejected:,} rejected, {sample.duplicates:,} double; "
               f"{sample.lists:,} lists written")
    made = f"; it had a part in {board.n_with_release:,} lists" if board.n_with_release else ""
    grid.add_row("release", release + made)
    grid.add_row("counts", counted)
    grid.add_row("memory", f"two workers {sample.resident_bytes / 2**20:,.0f} MiB, Redis {figures.redis_bytes / 2**20:,.0f} MiB")
    console.print("\n[bold]What happened[/] (95% intervals by drawing households anew)")
    console.print(grid)
    if figures.worst_late_s > 1:
        console.print(f"[yellow]this machine was busy: a basket came up to {figures.worst_late_s:.1f} s late[/]")


def show_list(console: Console, user: str, n_bought: int, lines: Sequence[Line]) -> None:
    """One household's list in words."""
    grid = Table(box=None, padding=(0, 2, 0, 0))
    grid.add_column("#", justify="right", style="dim")
    grid.add_column("for them", overflow="fold")
    grid.add_column("from", style="dim", overflow="fold")
    grid.add_column("because", overflow="fold")
    for line in lines:
        grid.add_row(str(line.rank), line.title, line.category, line.reason)
    console.print(f"\n[bold]Household {user}[/], {n_bought:,} purchases so far: the first ten of its list, and the first that are new to it")
    console.print(grid)


def how_to_look(settings: Settings, stack: LocalStack | None, user: str, *, stays: bool, log_files: Sequence[Path], trained: bool) -> str:
    """Commands that lead on from here."""
    command = _command()
    home = [f"  export STREAMREC_HOME={stack.home}"] if stack is not None and stack.home != (Path.cwd() / ".streamrec") else []
    plain = Settings()
    differing = [f"STREAMREC_{name.upper()}='{value}'" for name, value in _of_the_demo(settings, plain).items()]
    lines = ["", "How to look further"]
    if stays:
        lines += ["  the servers still run; in this shell:", *home]
    else:
        lines += ["  everything that the demo started has ended; its data stay, so this shows them again:", *home, f"  {command} up"]
    lines += [f"  export {' '.join(differing)}", f"  {command} status", f"  {command} lookup {user}",
              *([f"  {command} models list    # the release that was trained"] if trained else []),
              f"  {command} worker         # goes on where the demo's workers stopped",
              f"  {command} down           # ends the servers; with --wipe their data go too",
              "  logs of the workers: " + ", ".join(_short(path) for path in log_files)]
    if not stays:
        lines.append("  `make demo KEEP=1` leaves the servers up at the end")
    return "\n".join(lines)


def _of_the_demo(settings: Settings, plain: Settings) -> dict[str, object]:
    """What a worker must be told to go on as the demo's did; addresses it finds in the stack's note."""
    found_anyway = ("kafka_bootstrap", "redis_url", "web_host", "web_port")
    return {name: value for name, value in settings.public().items()
            if name not in found_anyway and value != getattr(plain, name) and value != "***"}


def _command() -> str:
    """How the command is called from here."""
    beside = Path(sys.executable).parent / "streamrec"
    if shutil.which("streamrec") == str(beside):
        return "streamrec"
    return _short(beside) if beside.exists() else f"{_short(Path(sys.executable))} -m infra.cli"


def _short(path: Path) -> str:
    """A path from here, if that is shorter."""
    relative = os.path.relpath(path)
    return relative if len(relative) < len(str(path)) else str(path)

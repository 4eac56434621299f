"""`streamrec top`: `status` that renews itself; where there is no terminal, a plain line at each look."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from collections.abc import Iterator
from typing import Any

from infra.settings import Settings
from streams.tasks import cancelled

#: Lists, rows and workers are found by a walk over all keys, which a busy Redis should not do every second.
WALK_EVERY_S = 10.0
QUIT_KEYS = b"qQ\x04"  # q, Ctrl-D; Ctrl-C comes as a signal


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Until q, Ctrl-C or SIGTERM, which are all the ordinary end."""
    asyncio.run(_watch(settings, args.interval))
    return 0


async def _watch(settings: Settings, interval_s: float) -> None:
    from infra.cli.glance import Glance

    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    glance = Glance(settings, count_every_s=WALK_EVERY_S)
    try:
        with _Show() as show, _keys(stop):
            while not stop.is_set():
                look = asyncio.ensure_future(glance.look())
                if await _first_of(look, stop):
                    show.tell(look.result())
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(interval_s):
                            await stop.wait()
    finally:
        await glance.close()


async def _first_of(look: asyncio.Future[Any], stop: asyncio.Event) -> bool:
    """Whether the look ended before we are told to stop: where a server hangs nobody should have to wait for it."""
    stopped = asyncio.ensure_future(stop.wait())
    await asyncio.wait([look, stopped], return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not look.done():
        await cancelled(look)
        return False
    return True


class _Show:
    """A screen that renews itself, or lines."""

    def __init__(self) -> None:
        from rich.live import Live

        from infra.cli.console import stdout_console
        from infra.cli.glance.screen import WIDTH

        self._console = stdout_console(WIDTH)
        self._live = Live(console=self._console, screen=True, auto_refresh=False) if self._console.is_terminal else None

    def __enter__(self) -> _Show:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def tell(self, report: dict[str, Any]) -> None:
        """Show this one."""
        from infra.cli.glance.screen import line, screen

        if self._live:
            self._live.update(screen(report), refresh=True)
        else:
            print(line(report), flush=True)


@contextlib.contextmanager
def _keys(stop: asyncio.Event) -> Iterator[None]:
    """Keys count at once, without Enter and without an echo, while this is entered; the terminal is left as it was."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        yield
        return
    import os
    import termios
    import tty

    fd, loop = sys.stdin.fileno(), asyncio.get_running_loop()
    before = termios.tcgetattr(fd)

    def read() -> None:
        pressed = os.read(fd, 64)
        if not pressed or set(pressed) & set(QUIT_KEYS):  # nothing: the terminal is gone
            stop.set()

    tty.setcbreak(fd)
    loop.add_reader(fd, read)
    try:
        yield
    finally:
        loop.remove_reader(fd)
        termios.tcsetattr(fd, termios.TCSADRAIN, before)

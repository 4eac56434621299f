"""The demo from its first line to its last: the stage is set, the show runs, the summary is given, the stage is cleared."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from consumers.demo import stage
from consumers.demo.board import Board
from consumers.demo.household import show_one
from consumers.demo.purchases import Purchases, load_purchases
from consumers.demo.renewal import Renewal, release_settings, why_none
from consumers.demo.scale import Scale, demo_settings
from consumers.demo.screen import Screen
from consumers.demo.show import Show
from consumers.demo.summary import how_to_look, show_summary
from consumers.importer import run_import
from infra.settings import Settings, stack_home
from infra.stack import LocalStack


def play(settings: Settings, stack: LocalStack | None, *, keep: bool, scale: Scale, light: bool = False) -> None:
    """See `consumers.demo.run`."""
    settings = demo_settings(settings)
    folder = (stack.home if stack is not None else stack_home()) / "demo"
    screen = Screen(Board())
    none = why_none(light)
    settings = settings if none else release_settings(settings, folder)
    ours = stack is not None and not stack.running
    try:
        with stage.alone(folder), stage.orderly_end(), ThreadPoolExecutor(1) as beside:
            screen.say("reading the purchases; the first time they are converted, which takes some seconds")
            loading = beside.submit(load_purchases, folder, scale)  # while the servers start
            with stage.servers(stack, keep, screen.say):
                settings = settings if stack is None else _at(settings, stack)
                user, log_files = _perform(settings, folder, loading.result(), screen, scale, none)
    except KeyboardInterrupt:
        screen.say("broken off; the workers and servers that the demo started have ended")
        raise
    screen.say(how_to_look(settings, stack, user, stays=keep or not ours, log_files=log_files, trained=not none))


def _perform(settings: Settings, folder: Path, purchases: Purchases, screen: Screen, scale: Scale, none: str | None) -> tuple[str, list[Path]]:
    """All that needs the servers; returns the household that was shown, and the workers' logs. none: why no release is trained."""
    board = screen.board
    stage.begin_afresh(settings)
    screen.say(f"starting two workers, telling them of {purchases.n_items:,} products")
    if none:
        screen.say(none)
    with stage.workers(settings, folder) as running, Renewal(settings, folder, board, stage.N_WORKERS) as renewal:
        run_import(settings, purchases.items, kind="items", resume=False, home=folder)
        ports = stage.wait_shared(settings, running)
        screen.say(f"all is set after {time.monotonic() - board.began_s:.1f} s")
        show = Show(settings, purchases, running, ports, board, screen, folder, scale, None if none else renewal)
        with screen:
            asyncio.run(show.run())
        show_summary(screen.console, board, show.figures, purchases, scale.speed_up, none or renewal.outcome())
        user = show_one(screen.console, settings, purchases, show.baskets)
    return user, [worker.log_file for worker in running]


def _at(settings: Settings, stack: LocalStack) -> Settings:
    """The same settings at the addresses that the stack has now."""
    now = stack.settings()
    return dataclasses.replace(settings, kafka_bootstrap=now.kafka_bootstrap, redis_url=now.redis_url)

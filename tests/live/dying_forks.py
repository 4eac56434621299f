"""Processes that kill themselves (-9) at a named place: forks of the test, so that none has to start from nothing."""

from __future__ import annotations

import importlib
import os
import signal
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple


class Place(NamedTuple):
    """Before (or after) the n-th call of `module.name` (or `module.Class.name`)."""

    module: str
    name: str
    n: int = 1
    after: bool = False


def _plant(place: Place) -> None:
    owner: Any = importlib.import_module(place.module)
    *classes, name = place.name.split(".")
    for part in classes:
        owner = getattr(owner, part)
    do, calls = getattr(owner, name), 0

    def counted(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == place.n and not place.after:
            os.kill(os.getpid(), signal.SIGKILL)
        found = do(*args, **options)
        if calls == place.n and place.after:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    setattr(owner, name, counted)


def dies_at(place: Place | None, action: Callable[[], Any]) -> bool:
    """Run `action` in a process of its own; whether it came to the place. Fails the test where the process failed otherwise."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            if place is not None:
                _plant(place)
            action()
            code = 0
        except BaseException:  # noqa: BLE001 - a child must not become a second test run
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0, f"the process that was to die at {place} failed; see what it said"
    return os.WIFSIGNALED(status)

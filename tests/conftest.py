"""What every test may use: `wait_until`, and a clean environment.

Tests of a developer's machine must not depend on the settings of that developer, so STREAMREC_* is taken away.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import pytest

POLL_S = 0.02  # often enough to be quick, seldom enough to leave the two cores to what is waited for


@pytest.fixture(autouse=True, scope="session")
def _no_settings_of_the_developer() -> None:
    for name in [name for name in os.environ if name.startswith("STREAMREC_")]:
        del os.environ[name]


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., Any]:
    """wait_until(condition, deadline_s, what): the first truthy value of condition(); fails, saying what, at the deadline."""

    def wait(condition: Callable[[], Any], deadline_s: float, what: str) -> Any:
        deadline = time.monotonic() + deadline_s
        while True:
            value = condition()
            if value:
                return value
            if time.monotonic() > deadline:
                pytest.fail(f"{what}: not within {deadline_s:g} s; the condition's last value is {value!r}")
            time.sleep(POLL_S)

    return wait

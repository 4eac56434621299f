"""Waiting for a Redis that is gone, or that takes no writes: nothing is lost meanwhile, it waits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import redis.exceptions

log = logging.getLogger(__name__)
T = TypeVar("T")

RETRY_FIRST_S, RETRY_MOST_S = 0.05, 1.0


class RedisRefuses(Exception):
    """Redis takes no writes: full, a replica, unable to persist. Treated like a Redis that is gone."""


#: Redis does not answer.
GONE = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError, EOFError)
#: Redis answers that it will not, for now.
REFUSES = (RedisRefuses, redis.exceptions.OutOfMemoryError, redis.exceptions.ReadOnlyError)


#: What a Redis answers that cannot persist, has too few replicas, is a replica without its primary, or runs a script.
_FOR_NOW = ("MISCONF", "NOREPLICAS", "MASTERDOWN", "BUSY", "TRYAGAIN")


async def _attempt(operation: Callable[[], Awaitable[T]]) -> T:
    try:
        return await operation()
    except redis.exceptions.ResponseError as error:
        if str(error).startswith(_FOR_NOW):
            raise RedisRefuses(str(error)) from error
        raise


async def until_there(
    operation: Callable[[], Awaitable[T]], waiting: Callable[[], AbstractContextManager[Any]]
) -> T:
    """Repeat an operation until Redis answers; `waiting` is entered while it does not."""
    try:
        return await _attempt(operation)
    except (*GONE, *REFUSES) as error:
        log.warning("Redis does not take part (%s): waiting for it", str(error) or type(error).__name__)
    with waiting():
        pause_s = RETRY_FIRST_S
        while True:
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_MOST_S)
            try:
                result = await _attempt(operation)
            except (*GONE, *REFUSES):
                continue
            log.warning("Redis is back")
            return result

"""`streamrec worker`: one worker in the foreground."""

from __future__ import annotations

import argparse

from infra.settings import Settings


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Creates the topics that are missing (a fresh deployment has none), then runs until SIGTERM."""
    del args
    import asyncio

    from infra.topics import ensure_topics_patiently
    from streams import worker

    asyncio.run(ensure_topics_patiently(settings))
    return int(worker.run(settings))

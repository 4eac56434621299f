"""`streamrec worker`: one worker in the foreground."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from infra.cores import one_thread_each
from infra.logs import start_logs
from infra.settings import Settings


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Creates the topics that are missing (a fresh deployment has none), then runs until SIGTERM.

    When another generation goes live it starts again as a worker of that one: a fresh process under the same id. One that was told
    which to serve ends instead.
    """
    del args
    one_thread_each()
    start_logs(settings)
    import asyncio

    from infra.topics import ensure_topics_patiently, wait_for_kafka
    from streams import worker
    from streams.store import at_generation

    asyncio.run(wait_for_kafka(settings))  # first: who has started neither server is told of `streamrec up`
    own = asyncio.run(at_generation(settings))
    asyncio.run(ensure_topics_patiently(own))

    def open_files(folder: str, settings: Settings, filed: Any, **about: Any) -> Any:
        from consumers.event_log.by_offset import open_files  # few workers ever need Parquet

        return open_files(folder, settings, filed, **about)

    code = worker.run(own, open_files)
    if code == worker.MOVED and not settings.generation:
        sys.stdout.flush()
        os.execv(sys.executable, sys.orig_argv)
    return int(code)

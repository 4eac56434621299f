"""`streamrec worker`: one worker in the foreground."""

from __future__ import annotations

import argparse

from infra.settings import Settings


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Runs until SIGTERM."""
    del args
    from streams import worker

    return int(worker.run(settings))

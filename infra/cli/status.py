"""`streamrec status`: the whole system at a glance, on one screen or as one JSON object (its keys: `infra.cli.glance.look`)."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from typing import Any

from infra.settings import Settings


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Looks and prints; exit code 0: healthy, 1: not, and a sentence that says what is not."""
    report = asyncio.run(_look(settings))
    if args.json:
        print(json.dumps(report))
    else:
        from infra.cli.console import stdout_console
        from infra.cli.glance.screen import WIDTH, screen

        stdout_console(WIDTH).print(screen(report))
    if report["healthy"]:
        return 0
    hint = "" if report["kafka"]["up"] and report["redis"]["up"] else (
        "; `streamrec up` starts local ones, STREAMREC_KAFKA_BOOTSTRAP and STREAMREC_REDIS_URL lead to others")
    print(f"streamrec status: {'; '.join(report['problems'])}{hint}", file=sys.stderr)
    return 1


async def _look(settings: Settings) -> dict[str, Any]:
    from infra.cli.glance import Glance

    glance = Glance(settings)
    try:
        return await glance.look()
    finally:
        await glance.close()

"""`streamrec demo`: real purchases through the real system."""

from __future__ import annotations

import argparse
import os

from infra.settings import Settings

SERVERS = ("kafka_bootstrap", "redis_url")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Hands over to the demo, which is a consumer like any other; servers that were named are used, else local ones."""
    from consumers import demo
    from infra.stack import LocalStack

    named = [name for name in SERVERS
             if os.environ.get(f"STREAMREC_{name.upper()}") or any(pair.startswith(f"{name}=") for pair in args.overrides)]
    # without --keep nothing may be left, so the servers end with this process even where it is killed
    stack = None if named else LocalStack(die_with_parent=not args.keep)
    return demo.run(settings, stack=stack, keep=args.keep, light=args.light)

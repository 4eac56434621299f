"""`streamrec demo`: real purchases through the real system."""

from __future__ import annotations

import argparse

from infra.settings import Settings


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Hands over to the demo, which is a consumer like any other."""
    from consumers import demo

    return int(demo.run(settings, keep=args.keep) or 0)

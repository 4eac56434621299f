"""`streamrec settings`: every setting with value, unit and meaning; secrets hidden."""

from __future__ import annotations

import argparse
import json

from infra.settings import Settings


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Prints them."""
    print(json.dumps(settings.public(), indent=2) if args.json else settings.describe())
    return 0

"""Options of the verbs `backup` and `restore`."""

from __future__ import annotations

import argparse


def backup(sub: argparse.ArgumentParser) -> None:
    """Options of `backup`."""
    sub.add_argument("folder", metavar="DIR", help="the backup: a folder that is not there yet, or is empty")
    sub.add_argument("--generation", metavar="NAME", help="which one (default: the one that is live; `streamrec shadows list` shows all)")
    sub.add_argument("--no-release", action="store_true", help="without the release that is served; a restore then needs the store that holds it")
    sub.add_argument("--json", action="store_true", help="what was copied as one JSON object")


def restore(sub: argparse.ArgumentParser) -> None:
    """Options of `restore`."""
    sub.add_argument("folder", metavar="DIR", help="what `streamrec backup` has made")
    sub.add_argument("--dry-run", action="store_true", help="verify it and whether it fits, and change nothing")
    sub.add_argument("--json", action="store_true", help="what was put back as one JSON object")

"""`streamrec hide`: takes items out of all lists, or lets them in again."""

from __future__ import annotations

import argparse
import asyncio
import json

from infra.settings import Settings


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Hides, shows again, or deletes."""
    from consumers.hiding import hide
    from infra.topics import ensure_topics

    asyncio.run(ensure_topics(settings))
    asyncio.run(hide(settings, args.items, undo=args.undo, delete=args.delete, wait_s=args.wait))
    named, are = ", ".join(args.items), "is" if len(args.items) == 1 else "are"
    if args.json:
        print(json.dumps({"items": args.items, "hidden": not args.undo}))
    elif args.undo:
        print(f"{named} {are} shown again: lists may name it from their users' next events on")
    else:
        print(f"{named} {are} hidden: no list is made with them any more, readers drop them from those that are there, and these are rewritten")
    return 0

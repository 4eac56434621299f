"""Options of the verbs about the log of events and generations of state: export, replay, shadows, diff, promote, rollback."""

from __future__ import annotations

import argparse

PLACE = "earliest, latest, ts=<ISO or epoch>, last=<7d> or offset=<partition:offset,...>; --time says what times mean"


def speed(text: str) -> float:
    """`max` or a factor, for argparse; 0: as fast as it can."""
    try:
        factor = 0.0 if text == "max" else float(text)
    except ValueError:
        factor = -1.0
    if not 0 <= factor < 1e9 or (factor == 0 and text != "max"):
        raise argparse.ArgumentTypeError(f"{text!r} is no speed; expected max, or how many times as fast as events came, such as 60")
    return factor


def count(text: str) -> int:
    """1 or more, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of workers; expected 1 or more")
    return int(text)


def _workers(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--workers", type=count, default=1, metavar="N", help="processes that read, here (default 1); more may run elsewhere, as "
                     "`streamrec worker --set generation=NAME`")
    sub.add_argument("--json", action="store_true", help="what came of it as one JSON object")


def replay(sub: argparse.ArgumentParser) -> None:
    """Options of `replay`."""
    sub.add_argument("--shadow", required=True, metavar="NAME", help="the generation that is made, or goes on (a-z 0-9 -)")
    sub.add_argument("--from", dest="begin", metavar="PLACE", help=f"where it begins (default earliest): {PLACE}")
    sub.add_argument("--to", dest="end", metavar="PLACE", help="where it ends, not included (default latest: where the log ends now). One that is "
                     "there already reads on to it")
    sub.add_argument("--source", default="kafka", metavar="WHERE", help="where it reads what lies there: kafka (the default), log (the event log that "
                     "`streamrec train` keeps) or the folder that `streamrec export` wrote; what has come since is read from Kafka")
    sub.add_argument("--time", choices=("append", "event"), default="append", help="what times mean: when Kafka took an event (the default), or its own "
                     "timestamp, which the event log knows: only events with one from --from on and before --to")
    sub.add_argument("--speed", type=speed, metavar="FACTOR", help="max (the default), or how many times as fast as events came")
    sub.add_argument("--settings", metavar="FILE", help='settings of its own, TOML: weights = "purchase=10"')
    _workers(sub)


def export(sub: argparse.ArgumentParser) -> None:
    """Options of `export`."""
    sub.add_argument("folder", metavar="FOLDER", help="where the files go; what an earlier export wrote there stays and is gone on with")
    sub.add_argument("--json", action="store_true", help="one JSON object")


def shadows(sub: argparse.ArgumentParser) -> None:
    """Options of `shadows`."""
    sub.add_argument("action", choices=("list", "drop"), help="list: all generations; drop: remove one, with its rows, lists, topics and group")
    sub.add_argument("name", metavar="NAME", nargs="?", help="which one to remove")
    sub.add_argument("--json", action="store_true", help="one JSON object")


def diff(sub: argparse.ArgumentParser) -> None:
    """Options of `diff`."""
    sub.add_argument("one", metavar="ONE", help="a generation, or `live`")
    sub.add_argument("other", metavar="OTHER", help="another one")
    sub.add_argument("--json", action="store_true", help="one JSON object instead of tables")


def promote(sub: argparse.ArgumentParser) -> None:
    """Options of `promote`."""
    sub.add_argument("name", metavar="NAME", help="the generation that is to be live")
    sub.add_argument("--dry-run", action="store_true", help="say what would be done, and change nothing")
    _workers(sub)


def rollback(sub: argparse.ArgumentParser) -> None:
    """Options of `rollback`."""
    _workers(sub)

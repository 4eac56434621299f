"""Options of the verbs about what must not stay as it is: validate, dlq, erase, hide."""

from __future__ import annotations

import argparse


def validate(sub: argparse.ArgumentParser) -> None:
    """A file or a topic."""
    from infra.cli.options import rows

    sub.add_argument("source", metavar="FILE|TOPIC", help="a file as `import` takes it, or events, items, or a topic's full name; a file wins")
    sub.add_argument("--kind", choices=("events", "items"), help="what it holds, where the name does not tell (default events)")
    sub.add_argument("--messages", action="store_true", help="each line of the file is the value of one message, as a producer would send it")
    rows(sub)


def dlq(sub: argparse.ArgumentParser) -> None:
    """What is done, with which letters."""
    from infra.cli.options import positive

    sub.add_argument("action", choices=("list", "show", "redrive"), help="list: count by reason; show: print them; redrive: send corrected ones, or "
                                                                        "as they are, once")
    sub.add_argument("what", nargs="*", metavar="KEY|FILE", help="topic/partition/offset of what was rejected; redrive: also files of lines as "
                                                                 "`show --json` prints them, corrected")
    sub.add_argument("--reason", metavar="REASON", help="only letters of this reason")
    for name, what in (("since", "from"), ("until", "up to")):
        sub.add_argument(f"--{name}", metavar="TIME", help=f"only letters {what} this moment of arrival (ISO-8601, epoch, or 2h, 7d ago)")
    sub.add_argument("-n", type=positive, default=20, metavar="N", help="show: the newest so many (default 20)")
    sub.add_argument("--all", action="store_true", help="show: all of them")
    sub.add_argument("--json", action="store_true", help="list and redrive: one JSON object; show: one a line")


def erase(sub: argparse.ArgumentParser) -> None:
    """Whom."""
    from infra.cli.options import seconds

    sub.add_argument("user", metavar="USER", help="user id")
    sub.add_argument("--verify", action="store_true", help="erase nothing: look what is left of him, and until when")
    sub.add_argument("--wait", type=seconds, default=60.0, metavar="SECONDS", help="how long to wait for workers (default 60)")
    sub.add_argument("--json", action="store_true", help="one JSON object")


def hide(sub: argparse.ArgumentParser) -> None:
    """Which items."""
    from infra.cli.options import seconds

    sub.add_argument("items", metavar="ITEM", nargs="+", help="item ids")
    what = sub.add_mutually_exclusive_group()
    what.add_argument("--undo", action="store_true", help="show them again")
    what.add_argument("--delete", action="store_true", help="take back what was said of them too: title, category, properties")
    sub.add_argument("--wait", type=seconds, default=60.0, metavar="SECONDS", help="how long to wait until readers are told (default 60)")
    sub.add_argument("--json", action="store_true", help="one JSON object")

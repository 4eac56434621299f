"""Entry of the command line: reads the options, loads the settings, calls the verb, turns failures into one sentence.

Exit codes: 0 done, 1 an expected failure (one sentence on stderr), 2 a wrong option, 130 interrupted. A traceback is a
defect of streamrec, never a mistake of the user.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import logging
import os
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

from infra.cli import options
from infra.settings import Settings, SettingsError, StreamrecError

WRONG_OPTION, FAILED, INTERRUPTED = 2, 1, 130


class Parser(argparse.ArgumentParser):
    """argparse with our manners: a mistake gets one sentence and the way to the help, not the whole usage."""

    def error(self, message: str) -> NoReturn:
        if wrong := re.match(r"argument VERB: invalid choice: '(.*)' \(choose from", message):
            message = _no_such_verb(wrong[1])
        self.exit(WRONG_OPTION, f"{self.prog}: {message}; see `{self.prog} --help`\n")


def _no_such_verb(word: str) -> str:
    near = difflib.get_close_matches(word, [verb.name for verb in options.VERBS], 1)
    hint = f"; did you mean `{near[0]}`?" if near else "; options go behind the verb" if "=" in word else ""
    return f"there is no verb {word!r}{hint}"


def parser() -> Parser:
    """The parser of all verbs."""
    top = Parser(prog="streamrec", allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter,
                 description="A streaming recommender: events go into Kafka, fresh lists lie in Redis.",
                 epilog="example, from nothing to a user's list:\n"
                        "  streamrec up\n  streamrec worker &\n  streamrec import purchases.csv\n  streamrec lookup u42\n"
                        "  streamrec down\n\nsettings: variables STREAMREC_*, listed by `streamrec settings`")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=Parser)
    for verb in options.VERBS:
        sub = verbs.add_parser(verb.name, help=verb.help, description=verb.description, epilog=f"example:\n{verb.example}",
                               formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
        sub.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="overrides",
                         help="a setting for this call, such as prefix=trial. (may be repeated)")
        verb.options(sub)
        sub.set_defaults(module=verb.module, function=verb.function)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit code."""
    args = parser().parse_args(argv)
    settings = None
    try:
        settings = Settings.load(os.environ, **{**_overrides(args.overrides), **_own_options(args)})
        if args.verb != "worker":  # clients that lose a server log each try; the sentence at the end says it once
            for noisy in ("aiokafka", "kafka", "asyncio"):
                logging.getLogger(noisy).setLevel(logging.CRITICAL)
        verb = getattr(importlib.import_module(args.module), args.function)
        return int(verb(args, settings) or 0)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has seen enough, as in `streamrec status | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        sentence = _sentence(error, settings)
        if sentence is None:
            raise
        if settings is not None and settings.log_format == "json" and logging.getLogger().handlers:  # worker and trainer: to the end
            logging.getLogger("streamrec").error("%s: %s", args.verb, sentence)
        else:
            print(f"streamrec {args.verb}: {sentence}", file=sys.stderr)
        return FAILED


def _own_options(args: argparse.Namespace) -> dict[str, str]:
    """Options that are settings."""
    return {"log_format": args.log_format} if getattr(args, "log_format", None) else {}


def _overrides(pairs: list[str]) -> dict[str, str]:
    overrides = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise SettingsError(f"--set {pair} names no value; expected NAME=VALUE, such as --set prefix=trial.")
        overrides[name] = value
    return overrides


def _sentence(error: BaseException, settings: Settings | None) -> str | None:
    """What to tell the user; None: not expected, a defect. By module names, so that no client is imported for it."""
    if isinstance(error, StreamrecError):
        return " ".join(str(error).split())
    root = type(error).__module__.partition(".")[0]
    if settings is not None and root in ("aiokafka", "kafka"):
        return (f"Kafka at {settings.kafka_bootstrap} does not answer as expected ({_brief(error)}); "
                "is it running? `streamrec status` tells, `streamrec up` starts a local one")
    if settings is not None and root == "redis":
        return (f"Redis at {settings.public()['redis_url']} does not answer as expected ({_brief(error)}); "
                "is it running? `streamrec status` tells, `streamrec up` starts a local one")
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return None


def _brief(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text[:200] if text.startswith(name := type(error).__name__) else f"{name}: {text[:200]}" if text else name

"""What a benchmark says and how: claims with their reach, options, and the report, as text or as one JSON object a claim.

A script of this folder has `CLAIMS`, `options(parser)` and `measure(args) -> list[Figure]`, and ends with

    if __name__ == "__main__":
        sys.exit(main(__doc__, CLAIMS, options, measure))

A missed reach is a figure, not a failure: the exit code is 1 only where nothing could be measured.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import shlex
import signal
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks._machine import machine, versions
from infra.settings import StreamrecError

SEED = 7


class BenchmarkError(StreamrecError):
    """Something that a benchmark relies on did not happen; there is no figure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One claim: `what` in the words of the table, and the reach, which is one of `at_least` and `at_most`."""

    name: str
    what: str
    unit: str
    at_least: float | None = None
    at_most: float | None = None

    @property
    def reach(self) -> str:
        """As it stands in the table."""
        return f">= {self.at_least:,g}" if self.at_least is not None else f"<= {self.at_most:,g}"

    def met(self, value: float) -> bool:
        """Whether a value is within reach."""
        return value >= self.at_least if self.at_least is not None else value <= (self.at_most or 0.0)


@dataclass(frozen=True, slots=True)
class Figure:
    """What was measured of a claim; `beside`: what it is compared with, same run, and what explains it."""

    claim: Claim
    value: float
    beside: dict[str, Any] = field(default_factory=dict)


class Options(argparse.ArgumentParser):
    """Options whose defaults depend on --small: the full size of the claim, or one for trying out."""

    def __init__(self, name: str, description: str) -> None:
        super().__init__(prog=f"streamrec bench {name}", description=description, allow_abbrev=False,
                         formatter_class=argparse.RawDescriptionHelpFormatter)
        self._sizes: dict[str, tuple[float, float]] = {}
        self.add_argument("--json", action="store_true", help="one JSON object a claim")
        self.add_argument("--small", action="store_true", help="small sizes, to try the script out; its figures say nothing")
        self.add_argument("--seed", type=int, default=SEED, help=f"of all that is drawn (default {SEED})")
        self.add_argument("--profile", type=Path, metavar="FOLDER",
                          help="sample the worker with py-spy while it is measured, where one is; stacks into this folder")

    def size(self, name: str, full: float, small: float, help: str) -> None:
        """An option that is a number, with its default in full and in small."""
        self._sizes[name.lstrip("-").replace("-", "_")] = (full, small)
        self.add_argument(name, type=type(full), help=f"{help} (default {full:,}, with --small {small:,})")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does; sizes that are not given take their default."""
        found = super().parse_args(args, namespace)
        for name, (full, small) in self._sizes.items():
            if getattr(found, name) is None:
                setattr(found, name, small if found.small else full)
        return found


def main(doc: str | None, claims: Sequence[Claim], options: Callable[[Options], None],
         measure: Callable[[argparse.Namespace], list[Figure]], argv: Sequence[str] | None = None) -> int:
    """Parse, measure, report. Ends its servers also when it is told to go (SIGTERM)."""
    parser = Options(claims[0].name.split()[0], doc or "")
    options(parser)
    args = parser.parse_args(argv)
    about = {"machine": machine(), "versions": versions(), "seed": args.seed, "command": _command(claims, args)}
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # a topic just made has no leader yet: it says so, and retries
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        figures = measure(args)
    except StreamrecError as error:
        print(f"{parser.prog}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    if args.json:
        for figure in figures:
            print(json.dumps(as_json(figure, about)), flush=True)
    else:
        print(as_text(figures, about), flush=True)
    return 0


def as_json(figure: Figure, about: dict[str, Any]) -> dict[str, Any]:
    """One claim as one object; a value that is endless (never fresh) becomes null."""
    value = _rounded(figure.value)
    return {"claim": figure.claim.name, "value": value if math.isfinite(value) else None, "unit": figure.claim.unit,
            "reach": figure.claim.reach, "met": figure.claim.met(figure.value),
            "beside": {name: _plain(entry) for name, entry in figure.beside.items()}, **about}


def as_text(figures: Sequence[Figure], about: dict[str, Any]) -> str:
    """The same for people."""
    lines = [f"machine   {about['machine']}", f"versions  {about['versions']}", f"seed      {about['seed']}",
             f"command   {about['command']}"]
    for figure in figures:
        claim = figure.claim
        met = "met" if claim.met(figure.value) else "MISSED"
        lines += ["", f"{claim.name}: {claim.what}",
                  f"  measured  {_shown(figure.value)} {claim.unit} (reach {claim.reach}: {met})"]
        lines += [f"  beside    {name.replace('_', ' ')}: {_shown(value)}" for name, value in figure.beside.items()]
    return "\n".join(lines)


def median(values: Sequence[float]) -> float:
    """Of the runs; endless ones count."""
    return statistics.median(values)


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of all does not exceed; nan where there is none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


def say(text: str) -> None:
    """Progress, for whoever waits; the report alone goes to stdout."""
    print(f"  .. {text}", file=sys.stderr, flush=True)


def _command(claims: Sequence[Claim], args: argparse.Namespace) -> str:
    """What to type to do it again: all sizes spelled out, so that a later default changes nothing."""
    parts = ["streamrec", "bench", claims[0].name.split()[0]]
    for name, value in vars(args).items():
        if name not in ("json", "small") and value is not None and value is not False:
            parts += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
    return shlex.join(parts)


def _rounded(value: float) -> float:
    """Four digits that count."""
    if not math.isfinite(value) or value == 0:
        return value
    if abs(value) >= 1000:
        return round(value)
    return round(value, 3 - math.floor(math.log10(abs(value))))


def _plain(entry: Any) -> Any:
    if isinstance(entry, float):
        return _rounded(entry) if math.isfinite(entry) else None
    if isinstance(entry, (list, tuple)):
        return [_plain(one) for one in entry]
    if isinstance(entry, dict):
        return {name: _plain(one) for name, one in entry.items()}
    return entry


def _shown(entry: Any) -> str:
    if isinstance(entry, (list, tuple)):
        return ", ".join(map(_shown, entry))
    if isinstance(entry, dict):
        return ", ".join(f"{name} {_shown(one)}" for name, one in entry.items())
    return f"{_rounded(entry):,}" if isinstance(entry, (int, float)) and not isinstance(entry, bool) else str(entry)


def scripts() -> list[str]:
    """Names of all benchmarks."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_"))

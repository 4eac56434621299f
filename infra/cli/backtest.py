"""`streamrec backtest`: a recorded log through the product and what it is compared with; a short table, and a report on request."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.cores import one_thread_each
from infra.settings import Settings, StreamrecError

if TYPE_CHECKING:
    from consumers.backtest.datasets import DataSet
    from consumers.backtest.plan import Rules

UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
LONGEST_MS = 36_500 * UNITS_MS["d"]
STEPS = 1_000  # of the progress bar
SHOWN = ("hr@10", "ndcg@10", "hr@20", "mrr@20", "recall@20", "hit@20")
ADER_SHOWN = ("hr@20", "hr@10", "mrr@20", "mrr@10")
#: With fewer targets a percentage says little.
FEW = 100
STRATA = ("all", "repeat", "new to user", "only new ranked")


class OptionError(StreamrecError):
    """An option of the backtest makes no sense."""


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Judges; exit code 0, or 1 where the audit finds a contender that looks ahead."""
    one_thread_each()
    from rich.console import Console

    from consumers.backtest.run import backtest, make_contenders, product_settings
    from infra.cli.console import progress_bar

    lags = [span_ms("lag", text) for text in (args.lag or "").split(",") if text]
    console = Console(stderr=True)
    with console.status(f"reading {args.source}") if sys.stderr.isatty() else _silent():
        data = load(args, settings)
    rules = make_rules(args, data, lags, settings)
    chosen = product_settings(settings, data)
    if args.releases and not chosen.blend_weights().get("transformer"):  # what suits the set may say nothing of it
        chosen = dataclasses.replace(chosen, blend=f"{chosen.blend},transformer={Settings().blend_weights()['transformer']}")
    names = args.contender or ["product", *(name for name, weight in chosen.blend_weights().items() if weight > 0)]
    contenders = make_contenders(names, chosen, args.releases)
    with progress_bar() as bar:
        task = bar.add_task("judging", total=STEPS)

        def advance(label: str, done: int, of: int) -> None:
            bar.update(task, completed=STEPS * done / max(1, of), description=label)

        report = backtest(data, contenders, rules, lags_ms=lags, against=args.against, audited=args.audit, progress=advance)
    about: dict[str, Any] = {"command": shlex.join(["streamrec", *sys.argv[1:]])}
    if args.out:
        report.save(Path(args.out), **about)
    if args.json:
        print(json.dumps({**about, "notes": list(report.notes), "passes": [{"label": label, **told} for label, _, told in report.passes]}))
    else:
        show([told | {"label": label} for label, _, told in report.passes], report.notes)
        if args.out:
            print(f"report: {Path(args.out) / 'report.md'}")
    return 0


def load(args: argparse.Namespace, settings: Settings) -> DataSet:
    """The data set, or the file, that the command names; a file wins over a set of the same name."""
    from consumers.backtest.datasets import SETS
    from consumers.backtest.datasets import load as load_set
    from consumers.backtest.files import load_file
    from streams.events import rating_scale

    folder = Path(args.data) if args.data else None
    if folder is not None and not folder.is_dir():
        raise OptionError(f"--data {args.data} is no folder; give the one that holds the data sets")
    columns = {role: getattr(args, f"column_{role}") for role in ("user", "item", "time", "type", "value", "basket", "category")}
    if args.source in SETS and not Path(args.source).is_file():
        if given := [f"--{role}" for role, name in columns.items() if name] + (["--limit"] if args.limit else []):
            raise OptionError(f"{', '.join(given)} is for files; the columns of {args.source} are known")
        return load_set(args.source, folder)
    if not Path(args.source).is_file() and not Path(args.source).suffix:
        raise OptionError(f"{args.source!r} is neither a file nor a data set; sets are {', '.join(SETS)}")
    return load_file(args.source, columns, format=args.format, default_type=args.default_type, limit=args.limit,
                     scale=rating_scale(settings))


def make_rules(args: argparse.Namespace, data: DataSet, lags: list[int], settings: Settings) -> Rules:
    """What the options say, over what suits the set."""
    from consumers.backtest.plan import ADER, LAGGED, NO_TARGETS, Rules
    from streams.events import EVENT_TYPES

    rules: dict[str, Any] = dict(data.rules)
    rules |= {name: value for name in ("protocol", "warmup", "min_history", "sample", "sample_baskets")
              if (value := getattr(args, name)) is not None}
    if points := settings.rating_points():
        rules["disliked_below"] = points[1]
    if args.sample_baskets and args.warmup is None:
        rules["warmup"] = 0.9
    if args.warmup is not None or args.sample_baskets:
        rules.pop("score_periods", None)
    if args.score_periods:
        first, dash, last = args.score_periods.partition("-")
        if not (first.isdecimal() and (last.isdecimal() or not dash)):
            raise OptionError(f"--score-periods {args.score_periods} names no periods; expected FIRST-LAST, such as 9-53")
        rules["score_periods"] = (int(first), int(last or first))
    for name in ("warmup", "sample"):
        if not 0 <= rules.get(name, 0.5) <= 1 or rules.get("sample") == 0:
            raise OptionError(f"--{name} {rules[name]:g} is no share; expected 0 to 1")
    if args.seed < 0:
        raise OptionError(f"--seed {args.seed} is negative; expected 0 or more")
    if lags and rules.get("protocol") != LAGGED:
        raise OptionError("--lag is for --protocol lagged")
    if rules.get("protocol") == LAGGED and not lags:
        raise OptionError("--protocol lagged needs --lag, such as --lag 1m,1h,1d")
    if args.period:
        if rules.get("protocol") != "periodic":
            raise OptionError("--period is for --protocol periodic")
        rules["period_ms"] = span_ms("period", args.period)
    if args.targets:
        types = {part.strip() for part in args.targets.split(",")}
        if unknown := types - set(EVENT_TYPES):
            raise OptionError(f"--targets names {', '.join(sorted(unknown))}; types are {', '.join(EVENT_TYPES)}")
        if types & NO_TARGETS:
            raise OptionError(f"--targets names {', '.join(sorted(types & NO_TARGETS))}, which speaks for no item")
        rules["target_types"] = frozenset(types)
    if rules.get("protocol") == ADER and args.repeats != "all":
        raise OptionError("--repeats is of no use in ADER's protocol, which filters nothing")
    return Rules(**rules, repeats=args.repeats, seed=args.seed, chunk=args.chunk)


def span_ms(option: str, text: str) -> int:
    """A span of time such as 90s, 1h, 2d, in ms."""
    number = text.strip().rstrip("msdhw")
    unit = text.strip()[len(number):]
    try:
        span = round(float(number) * UNITS_MS[unit])
    except (ValueError, KeyError, OverflowError):
        raise OptionError(f"--{option} {text!r} is no span of time; expected a number and one of {', '.join(UNITS_MS)}, such as 1h") from None
    if not 0 < span <= LONGEST_MS:
        raise OptionError(f"--{option} {text} is no span that can pass; expected more than nothing and at most 36500d")
    return span


def show(passes: list[dict[str, Any]], notes: tuple[str, ...]) -> None:
    """Prints the short tables."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True)
    for note in notes:
        console.print(note, style="dim", markup=False)
    for told in passes:
        log, scored = told["log"], told["scored"]
        console.print(f"{log['name']}, {told['label']}: {scored['targets']:,} targets in {scored['baskets']:,} baskets of "
                      f"{scored['users']:,} users, from {scored['first']} on, ranked among all items seen so far", markup=False)
        if verdict := _verdict(told):
            console.print(verdict, markup=False)
        for stratum in STRATA:
            judged = {name: c for name, c in told["contenders"].items() if stratum in c["figures"] and not _is_idle(name, c)}
            if not judged:
                continue
            n = next(c["figures"][stratum]["n"] for c in judged.values())
            table = Table("contender", *(metric.replace("recall", "rec") for metric in SHOWN), "cover", "lists/s", box=SIMPLE_HEAD,
                          padding=(0, 1, 0, 0), pad_edge=False, title=f"{stratum} ({n:,} targets)", title_justify="left")
            for name, contender in judged.items():
                table.add_row(name, *(f"{contender['figures'][stratum][m]:.4f}" for m in SHOWN),
                              f"{contender['lists']['coverage@10']:.3f}", f"{contender['speed']['lists_per_s'] or 0:,.0f}")
            console.print(table)
        if told["rules"]["protocol"] == "ader":
            for name, contender in told["contenders"].items():
                means = contender["period_mean"]
                console.print(f"{name}, mean over tests: " + ", ".join(f"{m} {100 * means[m]:.2f}" for m in ADER_SHOWN), markup=False)
        for name, by_stratum in (told["differences"] or {}).items():
            if name != "against":
                for stratum, by_metric in by_stratum.items():
                    value, low, high, share = by_metric["ndcg@10"]
                    console.print(f"{name} against {told['differences']['against']}, {stratum}: NDCG@10 {value:+.4f} "
                                  f"(95%: {low:+.4f} to {high:+.4f}), {share:+.1%}", markup=False)


    console.print("hr, ndcg, mrr: of targets (hr@10: share that stands among the first ten); rec, hit: of whole baskets; cover: share of items that stand "
                  "in somebody's first ten; more in docs/quality.md", style="dim", markup=False)


def _verdict(told: dict[str, Any]) -> str:
    """In one sentence, where there are both: ours, and the best that popularity can do."""
    hits = {name: c["figures"]["all"]["hr@10"] for name, c in told["contenders"].items() if "all" in c["figures"]}
    popular = max((name for name in hits if name.startswith("popular")), key=lambda name: hits[name], default=None)
    if "product" not in hits or popular is None:
        return ""
    few = "" if told["scored"]["targets"] >= FEW else "; so few targets tell little"
    return (f"the first ten of the product's lists hold {hits['product']:.1%} of the targets, those of what is popular ({popular}) "
            f"{hits[popular]:.1%}{few}")


def _is_idle(name: str, contender: dict[str, Any]) -> bool:
    """A channel that had nothing to say, as the Transformer has not without a release."""
    return name == "transformer" and not contender["figures"].get("all", {}).get("hr@50", 1)


class _silent:  # noqa: N801 - used as a verb
    """Nothing to show."""

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...

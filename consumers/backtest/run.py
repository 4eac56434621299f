"""A whole backtest: which contenders, which passes, which folder. What `streamrec backtest` and the benchmarks call.

In: a `DataSet`, contenders, options. Out: a `Report` of one pass or more (a pass for each lag), saved on request.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from consumers.backtest.ader import ader
from consumers.backtest.audit import audit
from consumers.backtest.contender import Contender, ContenderError
from consumers.backtest.datasets import SETS, DataSet
from consumers.backtest.plan import ADER, INSTANT, LAGGED, Rules
from consumers.backtest.product import CHANNELS, Product
from consumers.backtest.protocol import Result, judge
from consumers.backtest.report import save, summary
from infra.settings import Settings

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Report:
    """What came of it: (label, result, summary) of each pass."""

    passes: list[tuple[str, Result, dict[str, Any]]]
    notes: tuple[str, ...]

    def save(self, folder: Path, *, plots: bool = True, **about: Any) -> None:
        """Write report.json, report.md, ranks and plots; `about` says on what, and by which command."""
        save(folder, self.passes, {**about, "notes": list(self.notes)})
        if not plots:
            return
        try:
            from consumers.backtest.plots import draw
        except ImportError as error:
            raise ContenderError(f"the report lies in {folder}, but plots need matplotlib ({error}); "
                                 "pip install 'streamrec[backtest]'") from None
        draw(folder, [(label, told) for label, _, told in self.passes])


def make_contenders(names: Sequence[str], settings: Settings, store: str | None = None) -> list[Contender]:
    """Contenders by name: `product`, a channel (that one alone), or `module:Name`, a class or function that makes one.

    The product and its channels share one system, so that a log is absorbed once for all of them. `store`: of the releases that it serves.
    """
    made: list[Contender] = []
    product = Product(settings, store=store)
    for name in names:
        if name == "product":
            made.append(product)
        elif name in CHANNELS:
            made.append(Product(settings, name, system=product.system))
        elif ":" in name:
            made.append(_foreign(name))
        else:
            raise ContenderError(f"{name!r} is no contender; there are product, {', '.join(CHANNELS)}, and yours as module:Name")
    return made


def _foreign(name: str) -> Contender:
    module, _, attribute = name.partition(":")
    try:
        made = getattr(importlib.import_module(module), attribute)()
    except (ImportError, AttributeError, TypeError) as error:
        raise ContenderError(f"contender {name!r} cannot be made ({error}); expected module:Name that can be imported from here and "
                             "called without arguments") from error
    missing = [part for part in ("name", "start", "rank", "learn") if not hasattr(made, part)]
    if missing:
        raise ContenderError(f"contender {name!r} lacks {', '.join(missing)}; see consumers.backtest.contender.Contender")
    return made  # type: ignore[no-any-return]


def product_settings(settings: Settings, data: DataSet) -> Settings:
    """The user's settings, with those that suit the set where nothing else was set."""
    chosen = {f.name: data.settings[f.name] for f in dataclasses.fields(Settings)
              if f.name in data.settings and getattr(settings, f.name) == f.default}
    return dataclasses.replace(settings, **chosen)


def backtest(
    data: DataSet,
    contenders: Sequence[Contender],
    rules: Rules,
    *,
    lags_ms: Sequence[int] = (),
    against: str | None = None,
    audited: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Judge contenders on a data set; with `lags_ms` once for each, and once without. Raises LogError, ContenderError."""
    if against is not None and against not in [contender.name for contender in contenders]:
        raise ContenderError(f"differences are asked for against {against!r}; judged are {', '.join(c.name for c in contenders)}")
    log = ader(data.log) if rules.protocol == ADER else data.log
    todo = [(rules.protocol, rules)]
    if rules.protocol == LAGGED:
        todo = [(INSTANT, dataclasses.replace(rules, protocol=INSTANT, lag_ms=0))] if len(lags_ms) > 1 else []
        todo += [(f"lagged by {span(lag)}", dataclasses.replace(rules, lag_ms=lag)) for lag in lags_ms]
    notes = data.notes
    if audited:
        n = audit(log, contenders, todo[0][1])
        notes += (f"audit: {n:,} lists of each contender stayed the same when everything after them was replaced",)
    passes = []
    for label, one in todo:
        def tell(done: int, of: int, label: str = label) -> None:
            if progress:
                progress(label, done, of)

        result = judge(log, contenders, one, progress=tell)
        passes.append((label, result, summary(result, against)))
    return Report(passes, notes)


def span(ms: int) -> str:
    """A span of time as people write it.

    >>> span(3_600_000), span(90_000)
    ('1h', '90s')
    """
    for unit, size in (("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)):
        if ms % size == 0 and ms:
            return f"{ms // size}{unit}"
    return f"{ms}ms"


__all__ = ["SETS", "Report", "backtest", "make_contenders", "product_settings", "span"]

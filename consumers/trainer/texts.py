"""What a release knows of items besides who took them: their texts, or ready vectors, from the topic `items` or a file of items.

In: item attributes, and what the setting `train_text` names of them. Out: `ItemTexts`, which joins the window of a training. Items that nobody
has taken have a row here too: by it they are in the release.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from consumers.trainer.window import Window, places_in
from infra.settings import SettingsError
from models.hashing import stable_hash
from models.texts import hashed
from streams.catalogue import ItemAttributes

#: Wide enough that words seldom meet: a matrix of as many rows is learned.
WIDTH = 256
#: Before the name of a property that holds a ready vector.
READY = "vector:"
Items = Iterable[tuple[str, ItemAttributes]]


@dataclass(frozen=True)
class ItemTexts:
    """keys (m,) uint64 as those of a window; vectors (m, n_text) float32, each of length 1."""

    keys: np.ndarray
    vectors: np.ndarray

    def joined(self, window: Window) -> Window:
        """The window with the texts of its items (zeros where there are none), and those of others behind them."""
        texts = np.zeros((len(window.keys), self.vectors.shape[1]), np.float32)
        if not len(self.keys):
            return dataclasses.replace(window, texts=texts)
        at = places_in(self.keys, window.keys)
        texts[at >= 0] = self.vectors[at[at >= 0]]
        new = places_in(window.keys, self.keys) < 0
        return dataclasses.replace(window, texts=texts, more_keys=self.keys[new], more_texts=self.vectors[new])


def make_texts(items: Items, what: str) -> ItemTexts:
    """Vectors of the items that have what the setting `train_text` names; raises SettingsError."""
    names = [name.strip() for name in what.split(",") if name.strip()]
    if not any(name.startswith(READY) for name in names):
        return _hashed(items, names)
    if len(names) > 1:
        raise SettingsError(f"train_text is {what!r}; {READY}... stands alone: a ready vector is not hashed")
    return _ready(items, names[0].removeprefix(READY))


def _hashed(items: Items, names: list[str]) -> ItemTexts:
    texts = {item: text for item, attributes in items if (text := " ".join(filter(None, (_text(attributes, name) for name in names))))}
    vectors = hashed(texts.values(), WIDTH)
    told = vectors.any(axis=1)
    return ItemTexts(np.array([stable_hash(item) for item in texts], np.uint64)[told], vectors[told])


def _text(attributes: ItemAttributes, name: str) -> str:
    """What an attribute or property says, as words."""
    value: Any = getattr(attributes, name) if name in ("title", "category") else (attributes.properties or {}).get(name)
    return " ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)


def _ready(items: Items, name: str) -> ItemTexts:
    """What is no list of finite numbers, or of another length than most, counts as none."""
    found: dict[str, np.ndarray] = {}
    for item, attributes in items:
        try:
            vector = np.array((attributes.properties or {})[name], np.float64)
        except (KeyError, ValueError, TypeError, OverflowError):
            continue
        largest = np.abs(vector).max(initial=0.0) if vector.ndim == 1 and np.isfinite(vector).all() else 0.0
        if largest > 0:
            vector /= largest  # squares of what is left overflow nothing
            found[item] = (vector / np.linalg.norm(vector)).astype(np.float32)
    widths, counts = np.unique([len(vector) for vector in found.values()], return_counts=True)
    width = int(widths[counts.argmax()]) if len(widths) else 0
    kept = {item: vector for item, vector in found.items() if len(vector) == width}
    return ItemTexts(np.array([stable_hash(item) for item in kept], np.uint64), np.array(list(kept.values()), np.float32).reshape(len(kept), width))

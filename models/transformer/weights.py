"""A trained model as plain arrays: what training returns, a warm start takes, and export reads. No torch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from models.transformer.config import ModelConfig, TrainConfig

#: Name of the item vectors among the arrays, (n_items, d).
ITEMS = "items.weight"
#: Text vectors of the items, (n_items, n_text): data, kept with the weights because item vectors follow from both.
TEXTS = "texts"
_HEAD = "__config__"


@dataclass(frozen=True)
class Weights:
    """Arrays by parameter name (float32), and the configurations they were made by."""

    arrays: dict[str, np.ndarray]
    model: ModelConfig
    train: TrainConfig

    @property
    def n_items(self) -> int:
        return int(self.arrays[ITEMS].shape[0])

    def save(self, path: Path) -> None:
        """Write one .npz file."""
        head = json.dumps({"model": asdict(self.model), "train": asdict(self.train)})
        with path.open("wb") as file:
            np.savez(file, allow_pickle=False, **{_HEAD: np.array(head)}, **self.arrays)

    @classmethod
    def load(cls, path: Path) -> Weights:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            head = json.loads(str(file[_HEAD]))
            arrays = {name: file[name] for name in file.files if name != _HEAD}
        return cls(arrays, ModelConfig(**head["model"]), TrainConfig(**head["train"]))

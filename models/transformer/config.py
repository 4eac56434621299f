"""What a model is and how it is trained: two frozen dataclasses. Each default that is not everybody's has its reason beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


class ConfigError(ValueError):
    """A model or a training that cannot be built from these values; the message says which and why."""


def _require(true: bool, message: str) -> None:
    if not true:
        raise ConfigError(message)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape of the model. The same in training and in the exported graph.

    d: width of vectors; max_len: items of the history that are looked at, the newest; n_types: kinds of events, 0 = not looked
    at; time: a bias by the time between two events (only where events have a clock); n_text: width of items' text vectors, 0 = none;
    block and head: see `model.py`.
    """

    d: int = 64
    #: A second one costs a worker several times as much for each user (docs/transformer.md).
    n_blocks: int = 1
    n_heads: int = 2
    max_len: int = 50
    dropout: float = 0.3
    block: Literal["sasrec", "hstu", "ligr"] = "sasrec"
    head: Literal["dot", "cosine"] = "cosine"
    #: Largest logit of the cosine head, where learning begins; it is learned. Published heads use 12 (NISER) to 14 (CORE).
    scale: float = 14.0
    n_types: int = 0
    time: bool = False
    n_text: int = 0

    def __post_init__(self) -> None:
        _require(self.d > 0 and self.n_heads > 0 and self.d % self.n_heads == 0, f"d ({self.d}) must be divisible by n_heads ({self.n_heads})")
        _require(self.n_blocks >= 1, f"n_blocks is {self.n_blocks}; at least one block is needed")
        _require(self.max_len >= 1, f"max_len is {self.max_len}; a history has at least one item")
        _require(0 <= self.dropout < 1, f"dropout is {self.dropout}; it is a share from 0 to below 1")
        _require(self.block in ("sasrec", "hstu", "ligr"), f"block is {self.block!r}; it is sasrec, hstu or ligr")
        _require(self.head in ("dot", "cosine"), f"head is {self.head!r}; it is dot or cosine")
        _require(self.scale > 0, f"scale is {self.scale}; it must be above 0")
        _require(self.n_text >= 0, f"n_text is {self.n_text}; it must not be negative")
        _require(0 <= self.n_types < 256, f"n_types is {self.n_types}; types are one byte")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How weights are found. Equal seed, data and number of processes: equal weights (on a CPU bit by bit).

    epochs: passes over all pairs (history, next item), fractions allowed; tokens: places for items in one step, over all
    processes and accumulated parts; loss: "full" softmax over all items, or "sampled"; n_negatives: items drawn a step for the
    sampled one, `uniform` of them uniformly, the rest as often as they are taken.
    """

    epochs: float = 10.0
    tokens: int = 4_096
    #: High: with vectors of length 1 a step turns them, and 3e-3 left Diginetica's R@20 at .44 where this reaches .49.
    learning_rate: float = 1e-2
    warmup: float = 0.05
    weight_decay: float = 0.01
    #: Norm of a step's gradient from which on it is cut.
    clip: float = 1.0
    loss: Literal["full", "sampled"] = "sampled"
    n_negatives: int = 1_024
    uniform: float = 0.5
    #: Places in a row that sequences are packed into; 0 = max_len. Longer rows waste fewer places and attend in vain to more.
    row_len: int = 0
    #: Attend to the last event of each item only: what a worker's user row remembers (exact with one block). Published
    #: protocols see every event.
    distinct: bool = False
    #: Events of one moment are a basket: each is to be predicted from what was before all of them. Needs a clock.
    baskets: bool = False
    #: Parts that a step is computed in, one after the other, where one does not fit the memory.
    accumulate: int = 1
    #: auto: bfloat16 on a GPU, float32 elsewhere.
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    #: torch.compile: pays from some minutes of training on a GPU; never worth its start on a CPU.
    compile: bool = False
    seed: int = 1
    #: Seconds between two checkpoints.
    checkpoint_s: float = 60.0

    def __post_init__(self) -> None:
        _require(self.epochs > 0, f"epochs is {self.epochs}; it must be above 0")
        _require(self.tokens >= 1, f"tokens is {self.tokens}; a step needs at least one")
        _require(self.learning_rate > 0, f"learning_rate is {self.learning_rate}; it must be above 0")
        _require(0 <= self.warmup < 1, f"warmup is {self.warmup}; it is a share of the steps, below 1")
        _require(self.loss in ("full", "sampled"), f"loss is {self.loss!r}; it is full or sampled")
        _require(self.n_negatives >= 1, f"n_negatives is {self.n_negatives}; at least one is needed")
        _require(0 < self.uniform <= 1, f"uniform is {self.uniform}; a share above 0, or what nobody took is never a negative")
        _require(self.accumulate >= 1, f"accumulate is {self.accumulate}; a step has at least one part")
        _require(self.seed >= 0, f"seed is {self.seed}; it must not be negative")

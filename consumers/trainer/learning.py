"""The step of a training that takes long: from a window to weights, with a checkpoint, and with the last release's weights to begin with."""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from consumers.trainer.configs import warm
from consumers.trainer.window import Window, places_in
from infra.settings import StreamrecError
from models.durable import put
from models.transformer.config import ModelConfig, TrainConfig
from models.transformer.data import Sequences
from models.transformer.weights import Weights

log = logging.getLogger(__name__)

#: What the extra `train` brings.
PACKAGES = ("torch", "onnx", "onnxruntime", "pyarrow", "fsspec")
#: What reading a file raises that a power cut has left.
DAMAGED = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile)


class TrainerError(StreamrecError):
    """A training cannot be done; the message says what it needs."""


class Stopped(Exception):
    """The trainer was told to stop; the training goes on when it starts again."""


@dataclass(frozen=True)
class Report:
    """Where a training stands: the step it is at, and while it learns how that goes."""

    phase: str
    step: int = 0
    n_steps: int = 0
    loss: float = 0.0
    tokens_per_s: float = 0.0
    eta_s: float = 0.0


def check_packages() -> None:
    """Raises TrainerError where a package is missing: the end of a training would be too late for that."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise TrainerError(f'training needs {", ".join(missing)}, which {"is" if len(missing) == 1 else "are"} not installed: pip install '
                           '"streamrec[train]"; workers do not need that')


def learn(job: Path, window: Window, parent: Path | None, model: ModelConfig, train: TrainConfig, *, report: Callable[[Report], None],
          check_stop: Callable[[], None]) -> Weights:
    """Weights of the window, kept as `job/weights.npz` with the items' keys in `keys.npy`: what is there already is not learned again.

    parent: where the weights of the release that is served were kept. Raises FloatingPointError where the loss is no number, and what
    `check_stop` raises.
    """
    path, checkpoint = job / "weights.npz", job / "checkpoint.pt"
    try:
        return Weights.load(path)
    except DAMAGED:
        pass
    check_packages()
    from models.transformer.training import CheckpointError, fit

    n_text = window.texts.shape[1]
    model = dataclasses.replace(model, n_text=n_text)
    start, known = _start(parent, window, model) if parent is not None else (None, None)
    if start is not None:
        train = warm(train)
    sequences = Sequences(window.items, window.types, window.times_ms, window.ends)

    def progress(now: Any) -> None:
        check_stop()
        report(Report("learning", now.step, now.n_steps, now.loss, now.tokens_per_s, now.eta_s))

    def run() -> Weights:
        return fit(sequences, len(window.keys), model, train, start=start, known=known, texts=window.texts if n_text else None,
                   checkpoint=checkpoint, progress=progress)

    report(Report("learning"))
    try:
        weights = run()
    except (CheckpointError, RuntimeError, EOFError, zipfile.BadZipFile) as error:  # of other settings, or damaged by a power cut
        if not checkpoint.exists():
            raise
        log.warning("the checkpoint in %s cannot be used (%s): learning begins anew", job, error)
        checkpoint.unlink()
        weights = run()
    np.save(job / "keys.npy", window.keys)
    put(path, weights.save)
    return weights


def _start(parent: Path, window: Window, model: ModelConfig) -> tuple[Weights | None, np.ndarray | None]:
    """Weights to begin with, and where each item of the window stands in them, (n_items,) int32, -1 for a new one."""
    try:
        start, keys = Weights.load(parent / "weights.npz"), np.load(parent / "keys.npy", allow_pickle=False)
    except DAMAGED as error:
        log.warning("the weights of release %s are not here (%s): learning begins without them", parent.name, error)
        return None, None
    if dataclasses.replace(start.model, dropout=model.dropout) != model:
        log.warning("release %s has another shape than train_model asks for: learning begins without its weights", parent.name)
        return None, None
    return start, places_in(keys, window.keys).astype(np.int32)

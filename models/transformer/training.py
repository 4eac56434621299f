"""`fit`: sequences in, weights out. On a GPU, on a CPU, or on several by `torchrun`, the same code.

Step k is a function of (weights, optimiser, seed, k): batches, negatives and dropout are drawn anew from (seed, k). So a
checkpoint holds weights, optimiser and k, and a training that was killed ends with the bits of one that was not.
"""

from __future__ import annotations

import atexit
import hashlib
import io
import math
import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from models.durable import put
from models.transformer.config import ModelConfig, TrainConfig
from models.transformer.data import DataError, Plan, Sequences, batch, plan
from models.transformer.loss import Negatives, full_softmax, sampled_softmax
from models.transformer.model import Model, visibility
from models.transformer.weights import ITEMS, TEXTS, Weights

#: Steps between two words of progress: asking a GPU for the loss makes it wait.
REPORT_STEPS = 10


class CheckpointError(ValueError):
    """A checkpoint of another training."""


@dataclass(frozen=True)
class Progress:
    """step of n_steps done; loss: mean of -log P of the last steps; tokens_per_s: events (not padding) over all processes; eta_s: seconds left."""

    step: int
    n_steps: int
    loss: float
    tokens_per_s: float
    eta_s: float


class Objective(nn.Module):
    """The model and its loss as one module: what is wrapped for several processes, and compiled."""

    def __init__(self, model: Model, train: TrainConfig, negatives: Negatives | None, device: torch.device) -> None:
        super().__init__()
        self.model, self.distinct = model, train.distinct
        self.log_expected = torch.from_numpy(negatives.log_expected).to(device) if negatives else None

    def forward(self, items: Tensor, types: Tensor, ages: Tensor, windows: Tensor, again: Tensor,
                places: Tensor, wanted: Tensor, negatives: Tensor | None) -> Tensor:
        """items to again (R, L), places and wanted (N,), negatives (S,): summed loss over what is wanted."""
        visible = visibility(windows, again if self.distinct else None)
        if negatives is None or self.log_expected is None:
            users = self.model(self.model.vectors(items), types, ages, visible, distinct=self.distinct)  # (R, L, d)
            return full_softmax(users.flatten(0, 1)[places], self.model.vectors(), wanted)
        # one look-up for all: each makes a gradient as large as the table
        rows = self.model.vectors(torch.cat([items.flatten(), wanted, negatives]))
        history, ahead, drawn = torch.split(rows, [items.numel(), len(wanted), len(negatives)])
        users = self.model(history.view(*items.shape, -1), types, ages, visible, distinct=self.distinct)
        return sampled_softmax(users.flatten(0, 1)[places], ahead, wanted, drawn, negatives, self.log_expected[negatives])


def fit(
    sequences: Sequences, n_items: int, model: ModelConfig = ModelConfig(), train: TrainConfig = TrainConfig(), *,
    start: Weights | None = None, known: np.ndarray | None = None, texts: np.ndarray | None = None,
    checkpoint: Path | None = None, progress: Callable[[Progress], None] | None = None,
) -> Weights:
    """Weights that give what comes next in `sequences` a high score.

    start: weights to begin with, of the same `ModelConfig` but dropout; known (n_items,) int32: the row that each item has in
    them, -1 for a new one; None = the same rows, and new ones behind. texts (n_items, n_text) float32: text vectors of the items,
    where the model has them. checkpoint: a file; where it exists, the training goes
    on from it, and raises CheckpointError if it is another training's. Raises DataError for items that are not below n_items.
    """
    if len(sequences.items) and not 0 <= int(sequences.items.min()) <= int(sequences.items.max()) < n_items:
        raise DataError(f"items go from {sequences.items.min()} to {sequences.items.max()}; expected 0 to {n_items - 1}")
    team = _Team()
    with torch.random.fork_rng(devices=[team.device] if team.device.type == "cuda" else []):
        torch.manual_seed(train.seed)
        network = Model(model, n_items)
        if (0 if texts is None else texts.shape[1]) != model.n_text or (texts is not None and len(texts) != n_items):
            raise DataError(f"texts are {'missing' if texts is None else texts.shape}; expected {(n_items, model.n_text) if model.n_text else 'none'}")
        if texts is not None:
            network.texts.copy_(torch.from_numpy(texts))
        if start is not None:
            _warm(network, start, known)
        loop = _Loop(network.to(team.device), sequences, n_items, train, team)
        mark = _fingerprint(sequences, n_items, model, train, start, known, texts)
        if checkpoint is not None and checkpoint.exists():
            loop.load(checkpoint, mark)
        loop.run(checkpoint, mark, progress)
    arrays = {name: value.detach().float().cpu().numpy().copy() for name, value in network.state_dict().items()}
    return Weights(arrays, model, train)


class _Team:
    """The processes that train together, as `torchrun` started them; alone otherwise."""

    def __init__(self) -> None:
        self.rank, self.size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        gpu = torch.cuda.is_available()
        self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if gpu else torch.device("cpu")
        if gpu:
            torch.cuda.set_device(self.device)
        if self.size > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if gpu else "gloo")
            # a process that ends with the group's threads still running is aborted now and then
            atexit.register(dist.destroy_process_group)

    def wrap(self, objective: nn.Module) -> nn.Module:
        return nn.parallel.DistributedDataParallel(objective) if self.size > 1 else objective

    def total(self, value: Tensor) -> float:
        """The sum over all processes."""
        if self.size > 1:
            dist.all_reduce(value)
        return float(value)


class _Loop:
    def __init__(self, network: Model, sequences: Sequences, n_items: int, train: TrainConfig, team: _Team) -> None:
        self.network, self.sequences, self.train, self.team = network, sequences, train, team
        self._pass: tuple[int, Plan] | None = None
        self.max_len = network.config.max_len
        self.row_len = max(train.row_len or self.max_len, self.max_len)
        self.n_rows = max(1, round(train.tokens / self.row_len / (team.size * train.accumulate))) * team.size * train.accumulate
        self.steps_a_pass = max(1, -(-self._plan(0).n_rows // self.n_rows))
        self.n_steps = max(1, round(train.epochs * self.steps_a_pass)) if self._plan(0).n_rows else 0
        self.negatives = Negatives(sequences.items, n_items, train.n_negatives, train.uniform, train.seed) if train.loss == "sampled" else None
        objective: nn.Module = Objective(network, train, self.negatives, team.device)
        self.objective = team.wrap(torch.compile(objective) if train.compile else objective)  # type: ignore[arg-type]
        # biases, gains and scales are no weights: they are not pulled to 0
        groups = [{"params": [p for p in network.parameters() if p.ndim > 1], "weight_decay": train.weight_decay},
                  {"params": [p for p in network.parameters() if p.ndim <= 1], "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=train.learning_rate, betas=(0.9, 0.98), fused=True)
        self.step = 0
        self.half = train.precision == "bfloat16" or (train.precision == "auto" and team.device.type == "cuda")

    def run(self, checkpoint: Path | None, mark: str, progress: Callable[[Progress], None] | None) -> None:
        self.network.train()
        began = saved = said = time.monotonic()
        first, losses, tokens, all_tokens = self.step, torch.zeros((), device=self.team.device), 0, 0
        while self.step < self.n_steps:
            loss, n = self._one_step()
            losses, tokens, all_tokens = losses + loss, tokens + n, all_tokens + n
            self.step += 1
            if self.step % REPORT_STEPS == 0 or self.step == self.n_steps:
                mean, now = self.team.total(losses) / max(tokens, 1), time.monotonic()
                if not math.isfinite(mean):
                    raise FloatingPointError(f"the loss is {mean} at step {self.step} of {self.n_steps}; try a learning_rate below {self.train.learning_rate}")
                if progress is not None and self.team.rank == 0:
                    left = (self.n_steps - self.step) * (now - began) / (self.step - first)
                    progress(Progress(self.step, self.n_steps, mean, tokens / max(now - said, 1e-9), left))
                losses, tokens, said = torch.zeros_like(losses), 0, now
            if checkpoint is not None and self.team.rank == 0 and time.monotonic() - saved >= self.train.checkpoint_s:
                self.save(checkpoint, mark)
                saved = time.monotonic()

    def _one_step(self) -> tuple[Tensor, int]:
        """Loss summed over this process's part, and targets over all parts of all processes."""
        rate = self.train.learning_rate * _schedule(self.step, self.n_steps, self.train.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        team, parts = self.team, self.train.accumulate
        where = self._plan(self.step // self.steps_a_pass)
        # a pass may have a row more or less than the first one, by which steps are counted
        rows = (self.step % self.steps_a_pass * self.n_rows + np.arange(self.n_rows)) % where.n_rows
        n = max(where.n_wanted(rows), 1)
        total = torch.zeros((), device=team.device)
        for part in range(parts):
            number = part * team.size + team.rank
            torch.manual_seed(_seed(self.train.seed, self.step, number))  # dropout
            cut = batch(self.sequences, where, rows[number::parts * team.size], self.row_len)
            inputs = to_tensors(team.device, cut.items, cut.types, cut.ages, cut.windows, cut.again, cut.places, cut.wanted)
            negatives = torch.from_numpy(self.negatives.draw(self.step, number)).to(team.device) if self.negatives else None
            alone = self.objective.no_sync() if team.size > 1 and part + 1 < parts else nullcontext()  # type: ignore[operator]
            with alone:
                with torch.autocast(team.device.type, torch.bfloat16, enabled=self.half):
                    loss = self.objective(*inputs, negatives)
                (loss * (team.size / n)).backward()  # processes' gradients are averaged
            total += loss.detach()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.train.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return total, n

    def _plan(self, number: int) -> Plan:
        """Of a pass; the last one asked for is kept."""
        if self._pass is None or self._pass[0] != number:
            self._pass = number, plan(self.sequences, self.max_len, self.row_len, np.random.default_rng([self.train.seed, number]), self.train.baskets)
        return self._pass[1]

    def save(self, path: Path, mark: str) -> None:
        state = {"mark": mark, "step": self.step, "model": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}
        whole = io.BytesIO()  # on a full disk torch's own writer fails with an error that does not tell of it
        torch.save(state, whole)
        put(path, lambda scratch: scratch.write_bytes(whole.getbuffer()))

    def load(self, path: Path, mark: str) -> None:
        found: dict[str, Any] = torch.load(path, map_location=self.team.device, weights_only=True)
        if found["mark"] != mark:
            raise CheckpointError(f"{path} is the checkpoint of a training with other data, configuration or start; go on with those, or delete it to begin anew")
        self.network.load_state_dict(found["model"])
        self.optimizer.load_state_dict(found["optimizer"])
        self.step = found["step"]


def to_tensors(device: torch.device, *arrays: np.ndarray) -> list[Tensor]:
    """Whole numbers as int64, others as float32."""
    return [torch.from_numpy(array).to(device, torch.float32 if array.dtype.kind == "f" else torch.int64, non_blocking=True) for array in arrays]


def _schedule(step: int, n_steps: int, warmup: float) -> float:
    """Share of the learning rate: up in a straight line, then down by a cosine to nearly nothing."""
    rise = max(1, round(warmup * n_steps))
    if step < rise:
        return (step + 1) / rise
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, n_steps - rise)))


def _warm(network: Model, start: Weights, known: np.ndarray | None) -> None:
    """Take over everything but the rows of new items."""
    if replace(start.model, dropout=network.config.dropout) != network.config:
        raise DataError(f"a warm start needs the same model: found {start.model}, asked for {network.config}")
    n_items = network.items.num_embeddings
    rows = np.where(np.arange(n_items) < start.n_items, np.arange(n_items), -1) if known is None else known
    if len(rows) != n_items or int(rows.max(initial=-1)) >= start.n_items:
        raise DataError(f"known names {len(rows)} items up to row {rows.max(initial=-1)}; expected {n_items} items, rows below {start.n_items}")
    table = network.items.weight.detach().clone()
    old = torch.from_numpy(start.arrays[ITEMS])
    if network.text is not None:
        table[:] = 0  # a new item begins as its text
    table[torch.from_numpy(rows >= 0)] = old[torch.from_numpy(rows[rows >= 0].astype(np.int64))]
    kept = {name: torch.from_numpy(value) for name, value in start.arrays.items() if name != TEXTS}
    network.load_state_dict(network.state_dict() | kept | {ITEMS: table})


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def _fingerprint(sequences: Sequences, n_items: int, model: ModelConfig, train: TrainConfig, start: Weights | None,
                 known: np.ndarray | None, texts: np.ndarray | None) -> str:
    """What decides how a training goes."""
    said = hashlib.sha256(repr((n_items, asdict(model), asdict(train) | {"checkpoint_s": 0})).encode())
    for array in (sequences.items, sequences.types, sequences.times_ms, sequences.ends, known, texts, start and start.arrays[ITEMS]):
        said.update(b"-" if array is None else np.ascontiguousarray(array).tobytes())
    return said.hexdigest()

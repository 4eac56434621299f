"""Ranks under full ranking: over all items, never over a sample; ties count against the target."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from models.transformer.data import DataError, Plan, Sequences, batch, one_a_row, rows_of
from models.transformer.model import Model, visibility
from models.transformer.training import to_tensors
from models.transformer.weights import Weights

#: Places in a row that are computed together, and users whose scores exist at a time.
N_PLACES, N_USERS = 16_384, 512


def build(weights: Weights) -> Model:
    """The model in its state for asking: no dropout."""
    model = Model(weights.model, weights.n_items)
    model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.arrays.items()})
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu")


def ranks(weights: Weights, histories: Sequences, targets: np.ndarray, *, exclude_seen: bool = False, distinct: bool = False) -> np.ndarray:
    """Rank of targets[k] (u,) for history k: the number of items whose score is at least the target's, itself included (u,) int64.

    exclude_seen: items of the history are not ranked, except the target. distinct: as `TrainConfig.distinct`. Raises DataError
    for an empty history: there is nothing to go by.
    """
    if len(targets) != histories.n_users or (histories.ends == histories.starts).any():
        raise DataError(f"{len(targets)} targets for {histories.n_users} histories, {int((histories.ends == histories.starts).sum())} of them empty")
    model = build(weights)
    where = one_a_row(histories, weights.model.max_len)
    found = np.empty(len(targets), np.int64)
    done = 0
    for users, _ in _users(model, histories, where, distinct, last_only=True):
        here = np.arange(done, done + len(users))
        seen = histories.take(here) if exclude_seen else None
        found[here] = _ranks(model.vectors(), users, torch.from_numpy(targets[here].astype(np.int64)), seen)
        done += len(users)
    return found


def prefix_ranks(weights: Weights, sequences: Sequences, *, distinct: bool = False) -> np.ndarray:
    """Rank of the next item for every beginning of every sequence, in order: (events - sequences that are not empty,) int64.

    A beginning longer than max_len is seen through its newest max_len events.
    """
    model, max_len = build(weights), weights.model.max_len
    pairs = np.maximum(sequences.ends - sequences.starts - 1, 0)
    # one window holds the first max_len beginnings of a sequence; a later one is a window of its own, of which the end is asked
    late = np.maximum(pairs - max_len, 0)
    user = np.repeat(np.arange(len(pairs)), late)
    nth = np.arange(len(user)) - np.repeat(np.cumsum(late) - late, late) + 1
    early = np.flatnonzero(pairs > 0)
    first = np.concatenate([sequences.starts[early], sequences.starts[user] + nth])
    size = np.concatenate([np.minimum(pairs[early], max_len), np.full(len(user), max_len)])
    order = np.lexsort((np.arange(len(first)), size))  # like sizes together: little padding
    where = Plan(first[order], size[order], np.zeros(len(first), np.int64), np.arange(len(first) + 1))
    single = (np.arange(len(first)) >= len(early))[order]
    found = np.zeros(len(sequences.items), np.int64)  # by the event before the target
    done = 0
    for users, targets in _users(model, sequences, where, distinct, last_only=False):
        here = np.arange(done, done + len(users))
        asked = targets >= 0  # (R, L)
        place = np.arange(targets.shape[1])[None, :]
        asked &= torch.from_numpy(~single[here][:, None] | (place == where.size[here][:, None] - 1)).to(asked.device)
        event = where.first[here][:, None] + place
        found[event[asked.cpu().numpy()]] = _ranks(model.vectors(), users[asked], targets[asked].cpu(), None)
        done += len(users)
    return found[found > 0]


@torch.no_grad()
def _users(model: Model, sequences: Sequences, where: Plan, distinct: bool, last_only: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """User vectors and targets of rows in order: (R, L, d) and (R, L), or of each row's newest place (R, d) and (R,)."""
    device = model.items.weight.device
    for rows in rows_of(where.n_rows, max(1, N_PLACES // model.config.max_len)):
        cut = batch(sequences, where, rows, max(1, int(where.size[rows].max())))
        items, targets, types, ages, windows, again = to_tensors(device, cut.items, cut.targets, cut.types, cut.ages, cut.windows, cut.again)
        users = model(model.vectors(items), types, ages, visibility(windows, again if distinct else None), distinct=distinct)
        if last_only:
            at = torch.arange(len(rows), device=device), torch.from_numpy(where.size[rows] - 1).to(device)
            yield users[at], targets[at]
        else:
            yield users, targets


@torch.no_grad()
def _ranks(vectors: Tensor, users: Tensor, targets: Tensor, seen: Sequences | None) -> np.ndarray:
    """users (N, d), targets (N,) -> ranks (N,)"""
    found = []
    for start in range(0, len(users), N_USERS):
        scores = users[start:start + N_USERS] @ vectors.T  # (n, n_items)
        target = targets[start:start + N_USERS].to(scores.device)[:, None]
        wanted = scores.gather(1, target)  # (n, 1)
        if seen is not None:
            some = seen.take(np.arange(start, start + len(scores)))
            row = np.repeat(np.arange(len(scores)), some.ends - some.starts)
            scores[torch.from_numpy(row).to(scores.device), torch.from_numpy(some.items.astype(np.int64)).to(scores.device)] = float("-inf")
            scores.scatter_(1, target, wanted)
        found.append((scores >= wanted).sum(1).cpu().numpy())
    return np.concatenate(found) if found else np.empty(0, np.int64)

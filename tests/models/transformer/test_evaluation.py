"""Ranks against ranks counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'streamrec[train]'")

from models.transformer.config import TrainConfig  # noqa: E402
from models.transformer.data import DataError, Sequences  # noqa: E402
from models.transformer.evaluation import prefix_ranks, ranks  # noqa: E402
from models.transformer.model import Model  # noqa: E402
from models.transformer.weights import ITEMS, Weights  # noqa: E402
from tests.models.transformer.worlds import N_ITEMS, SMALL, ragged  # noqa: E402


def random_weights() -> Weights:
    torch.manual_seed(2)
    model = Model(SMALL, N_ITEMS)
    return Weights({name: value.numpy() for name, value in model.state_dict().items()}, SMALL, TrainConfig())


def test_every_beginning_is_ranked_as_a_history_of_its_own() -> None:
    """Sequences up to 19 long, of which 8 are looked at."""
    weights, world = random_weights(), ragged(7)
    expected = []
    for start, end in zip(world.starts, world.ends, strict=True):
        for stop in range(start + 1, end):
            one = Sequences(world.items[start:stop], world.types[start:stop], None, np.array([stop - start]))
            expected.append(int(ranks(weights, one, world.items[stop:stop + 1])[0]))
    assert prefix_ranks(weights, world).tolist() == expected


def test_ties_count_against_the_target() -> None:
    weights = random_weights()
    weights.arrays[ITEMS][:] = weights.arrays[ITEMS][0]
    history = Sequences(np.array([1, 2], np.int32), np.zeros(2, np.uint8), None, np.array([2]))
    assert ranks(weights, history, np.array([5])).tolist() == [N_ITEMS]
    assert ranks(weights, history, np.array([5]), exclude_seen=True).tolist() == [N_ITEMS - 2]
    assert ranks(weights, history, np.array([1]), exclude_seen=True).tolist() == [N_ITEMS - 1]


def test_an_empty_history_is_said() -> None:
    nobody = Sequences(np.array([1], np.int32), np.zeros(1, np.uint8), None, np.array([1, 1]))
    with pytest.raises(DataError, match="1 of them empty"):
        ranks(random_weights(), nobody, np.array([0, 0]))

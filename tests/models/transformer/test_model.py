"""The model: no leak from the future, packing changes nothing, padding changes nothing, blocks differ and all are causal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'streamrec[train]'")

from models.transformer.config import ConfigError, ModelConfig  # noqa: E402
from models.transformer.data import Sequences, batch, one_a_row, plan  # noqa: E402
from models.transformer.model import Model, visibility  # noqa: E402
from models.transformer.training import to_tensors  # noqa: E402
from tests.models.transformer.worlds import N_ITEMS, ragged  # noqa: E402

CONFIGS = [ModelConfig(d=16, n_blocks=2, max_len=12, block=block, head=head, n_types=3, time=True)
           for block in ("sasrec", "ligr", "hstu") for head in ("dot", "cosine")]
every = pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config.block}-{config.head}")


def rough(config: ModelConfig) -> Model:
    """Weights far from where they begin, biases included: a term that starts at 0 hides its faults."""
    torch.manual_seed(5)
    model = Model(config, N_ITEMS).eval()
    for value in model.parameters():
        torch.nn.init.normal_(value, std=0.3)
    return model


def users(model: Model, sequences: Sequences, distinct: bool = False) -> list[np.ndarray]:
    """Vectors after each event of each user, one user a row."""
    where = one_a_row(sequences, model.config.max_len)
    rows = batch(sequences, where, np.arange(where.n_rows), model.config.max_len)
    items, types, ages, windows, again = to_tensors(torch.device("cpu"), rows.items, rows.types, rows.ages, rows.windows, rows.again)
    with torch.no_grad():
        found = model(model.vectors(items), types, ages, visibility(windows, again if distinct else None), distinct=distinct)
    return [found[k, :size].numpy() for k, size in enumerate(where.size)]


@every
def test_the_future_does_not_show(config: ModelConfig) -> None:
    model, sequences = rough(config), ragged(2, longest=12)
    before = users(model, sequences)
    last = sequences.ends[sequences.ends > sequences.starts] - 1
    changed = sequences.items.copy()
    changed[last] = (changed[last] + 1) % N_ITEMS
    types = sequences.types.copy()
    types[last] = (types[last] + 1) % 3
    after = users(model, Sequences(changed, types, sequences.times_ms, sequences.ends))
    for old, new in zip(before, after, strict=True):
        if len(old):
            assert np.allclose(old[:-1], new[:-1], atol=1e-6) and not np.allclose(old[-1], new[-1], atol=1e-3)


@every
def test_packed_rows_give_what_rows_of_their_own_give(config: ModelConfig) -> None:
    model, sequences = rough(config), ragged(3, longest=12)
    where = plan(sequences, 12, 40, np.random.default_rng(0))
    rows = batch(sequences, where, np.arange(where.n_rows), 40)
    items, types, ages, windows = to_tensors(torch.device("cpu"), rows.items, rows.types, rows.ages, rows.windows)
    with torch.no_grad():
        packed = model(model.vectors(items), types, ages, visibility(windows)).numpy()
    alone = users(model, sequences)
    for k in range(where.n_rows):
        for w in range(where.rows[k], where.rows[k + 1]):
            user = int(np.searchsorted(sequences.ends, where.first[w], side="right"))
            place = slice(where.column[w], where.column[w] + where.size[w])
            assert np.allclose(packed[k, place], alone[user][:where.size[w]], atol=1e-5)


@every
def test_only_time_between_events_counts_not_the_hour(config: ModelConfig) -> None:
    model, sequences = rough(config), ragged(4, longest=12)
    assert sequences.times_ms is not None
    later = replace(sequences, times_ms=sequences.times_ms + 86_400_000)
    slower = replace(sequences, times_ms=sequences.times_ms * 50)
    same, other = users(model, later), users(model, slower)
    for old, new in zip(users(model, sequences), same, strict=True):
        assert np.allclose(old, new, atol=1e-5)
    assert any(not np.allclose(old, new, atol=1e-3) for old, new in zip(same, other, strict=True))


@every
def test_distinct_sees_what_a_user_row_holds(config: ModelConfig) -> None:
    """With one block exactly: a second one would see what the keys saw before an item came again."""
    model = rough(replace(config, n_blocks=1))
    sequences = ragged(5, longest=12)
    whole, rows = users(model, sequences, distinct=True), users(model, sequences.as_rows(12))
    for old, new in zip(whole, rows, strict=True):
        if len(old):
            assert np.allclose(old[-1], new[-1], atol=1e-5)


def test_blocks_are_different_models() -> None:
    sequences = ragged(6, longest=12)
    found = [users(rough(config), sequences)[3][-1] for config in CONFIGS if config.head == "dot"]
    assert all(not np.allclose(a, b, atol=1e-2) for i, a in enumerate(found) for b in found[:i])


@pytest.mark.parametrize(("values", "said"), [({"d": 65}, r"d \(65\) must be divisible by n_heads \(2\)"), ({"max_len": 0}, "max_len is 0"), ({"block": "rnn"}, "rnn")])
def test_what_cannot_be_built_is_said(values: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ModelConfig(**values)  # type: ignore[arg-type]

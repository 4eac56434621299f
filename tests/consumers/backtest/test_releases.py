"""Releases under judgement: served from the moment at which their data end, and never before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from consumers.backtest.contender import ContenderError
from consumers.backtest.product import Product
from consumers.backtest.releases import Releases
from consumers.backtest.run import make_contenders
from infra.settings import Settings
from models.release import write
from tests.consumers.backtest.worlds import random_world
from tests.models.graphs import release_of


def store_of(folder: Path, items: list[str], ends: list[int]) -> tuple[str, list[str]]:
    versions = [write(str(folder), release_of(items, seed=k, data={"last_time_ms": end})) for k, end in enumerate(ends)]
    return str(folder), versions


def served(product: Product) -> str | None:
    model = product.system.engine.state.refresher.transformer.model
    return model.version if model else None


def test_each_is_served_from_the_end_of_its_data(tmp_path: Path) -> None:
    log = random_world(1)
    ends = [int(log.times_ms[120]), int(log.times_ms[240])]
    store, versions = store_of(tmp_path, log.item_ids, ends[::-1])  # the older data in the newer release: data decide
    product = Product(Settings(), store=store)
    product.start(log.until(0))
    for k in range(300):
        product.learn(log.until(k + 1), k, k + 1)
        n_ended = sum(int(log.times_ms[k]) > end for end in ends)
        assert served(product) == (None, versions[1], versions[0])[n_ended]
    product.start(log.until(0))
    assert served(product) is None, "a new start knows nothing of the last one"


def test_the_channel_alone_ranks_by_the_release(tmp_path: Path) -> None:
    log = random_world(1)
    store, _ = store_of(tmp_path, log.item_ids, [int(log.times_ms[0]) - 1])
    alone = make_contenders(["transformer"], Settings(), store)[0]
    alone.start(log.until(0))
    alone.learn(log.until(200), 0, 200)
    users = np.arange(log.n_users, dtype=np.int32)
    ranking = alone.rank(users, int(log.times_ms[199]), 10)
    assert isinstance(alone, Product)
    found = alone.system.engine.state.refresher.embeddings(alone.system.slots_of(users).tolist())
    assert found is not None
    vectors = dict(zip(log.item_ids, release_of(log.item_ids, seed=0).vectors, strict=True))
    for u, vector in enumerate(found[1]):
        scores = [float(vector @ vectors[log.item_ids[i]]) for i in ranking.items[u].tolist() if i >= 0]
        assert len(scores) >= 3 and scores == sorted(scores, reverse=True)


def test_a_store_that_cannot_be_judged_is_refused_with_a_reason(tmp_path: Path) -> None:
    with pytest.raises(ContenderError, match="holds no release"):
        Releases(str(tmp_path / "nothing"))
    write(str(tmp_path / "silent"), release_of(["a", "b"]))
    with pytest.raises(ContenderError, match="does not say up to when it learned"):
        Releases(str(tmp_path / "silent"))
    store, versions = store_of(tmp_path / "damaged", ["a", "b"], [5])
    (tmp_path / "damaged" / versions[0] / "vectors.npy").write_bytes(b"other")
    with pytest.raises(ContenderError, match="cannot be judged"):
        Releases(store).due(6)

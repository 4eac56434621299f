"""The gate: better passes, worse does not, and the first has to beat what is popular. On the graphs that workers would run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from consumers.event_log import EventLog  # noqa: E402
from consumers.trainer.candidate import rounded  # noqa: E402
from consumers.trainer.configs import configs  # noqa: E402
from consumers.trainer.judging import figures_of, judge, popular_ranks, ranks_of, told  # noqa: E402
from consumers.trainer.window import Choice, Window, make_window  # noqa: E402
from infra.settings import Settings  # noqa: E402
from models.release import Manifest, Release, Shape, dense  # noqa: E402
from models.transformer.data import Sequences  # noqa: E402
from models.transformer.evaluation import ranks  # noqa: E402
from models.transformer.export import item_vectors, to_onnx  # noqa: E402
from models.transformer.training import fit  # noqa: E402
from models.transformer.weights import Weights  # noqa: E402
from tests.consumers.trainer.worlds import QUICK, events, fill  # noqa: E402


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Window, Weights, Release, Release]:
    """A window, what learned it, and one that has learned nothing."""
    folder = tmp_path_factory.mktemp("log")
    fill(folder, events(1, 150))
    with EventLog(folder).snapshot() as log:
        window = make_window(log, log.ends, log.days()[-1], Choice(window_days=1000, exemplars=0.0, type_weights=Settings().type_weights(), neutral=None,
                                                                   seed=1))
    model, train = configs(Settings(train_model=QUICK), seed=1)
    weights = fit(Sequences(window.items, window.types, window.times_ms, window.ends), len(window.keys), model, train)
    vectors = item_vectors(weights)
    manifest = Manifest(version="20261122T112000Z-000001", shape=Shape(*vectors.shape, model.max_len, model.n_types))
    good = Release(manifest, vectors, window.keys, to_onnx(weights))
    bad = good._replace(vectors=np.random.default_rng(1).permutation(vectors))
    return window, weights, good, bad


def test_ranks_are_those_of_the_training_code(world: tuple[Window, Weights, Release, Release]) -> None:
    window, weights, good, _ = world
    place = {key: k for k, key in enumerate(window.keys.tolist())}
    items = np.array([place[key] for key in window.test_items.tolist()])
    sequences = Sequences(items.astype(np.int32), window.test_types, window.test_times_ms, window.test_ends).as_rows()
    wanted = ranks(weights, sequences, np.array([place[key] for key in window.targets.tolist()]))
    found = ranks_of(window, good)
    assert (np.abs(found - wanted) <= 1).all() and (found == wanted).mean() > 0.95  # rounding may turn two that are nearly equal


def test_the_verdicts(world: tuple[Window, Weights, Release, Release]) -> None:
    window, _, good, bad = world
    first = judge(window, good, None, seed=1)
    assert first.passed and first.against == "popularity" and first.difference["low"] > 0
    assert not judge(window, bad, None, seed=1).passed
    assert judge(window, good, bad, seed=1).passed
    assert judge(window, good, good, seed=1).passed  # a renewal that is as good
    worse = judge(window, bad, good, seed=1)
    assert not worse.passed and worse.difference["high"] < 0 and "against" in worse.why
    assert told(worse)["incumbent"]["ndcg@10"] > told(worse)["candidate"]["ndcg@10"]
    assert worse.n_tests == len(window.targets) and worse.n_users == len(np.unique(window.testers))


def test_an_item_that_a_release_does_not_know_is_a_miss(world: tuple[Window, Weights, Release, Release]) -> None:
    window, _, good, _ = world
    unknown = good.keys[window.items[0]]
    keys = good.keys.copy()
    keys[keys == unknown] = 12345
    found = ranks_of(window, good._replace(keys=keys))
    assert (found[window.targets == unknown] == 0).all() and (found[window.targets != unknown] > 0).all()
    assert (ranks_of(window, good._replace(keys=np.arange(1, len(keys) + 1, dtype=np.uint64))) == 0).all()  # another catalogue


def test_ties_count_against_what_is_popular(world: tuple[Window, Weights, Release, Release]) -> None:
    window = world[0]
    assert (popular_ranks(window, np.ones(len(window.keys), np.int64)) == len(window.keys)).all()
    counts = np.bincount(window.items, minlength=len(window.keys))
    top = popular_ranks(window, counts)[window.targets == window.keys[counts.argmax()]]
    assert (top == (counts == counts.max()).sum()).all()


@pytest.mark.parametrize("what", ["vectors", "all"])
def test_rounding_costs_little_and_is_told(world: tuple[Window, Weights, Release, Release], what: str) -> None:
    window, _, good, _ = world
    small = rounded(good, what)
    assert small.vectors.dtype == np.int8 and small.scales is not None and (what == "vectors") == (small.graph == good.graph)
    assert rounded(good, "off") is good
    before, after = (figures_of(ranks_of(window, release))["ndcg@10"] for release in (good, small))
    assert 0 < np.abs(dense(small) - good.vectors).max() < 0.01 * np.abs(good.vectors).max() and after > 0.9 * before

"""Recall by a release: users' vectors are what the network says of their rows, and candidates are the best of all items."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest

from models import graph as graph_module
from models import item_vectors, recall, two_stage
from models.candidates import Histories, ItemIndex
from models.hashing import rebuild, stable_hash
from models.item_rows import ITEM_ROW
from models.recall import Recall, TransformerRecall
from models.release import BadRelease, Release, quantised
from models.user_row import EMPTY_ROW, N_ITEMS, SEEN, USER_ROW, to_ticks
from tests.models.graphs import N_TYPES, by_hand, graph, release_of

NOW_MS = 1_763_778_821_000
NAMES = [f"i{k}" for k in range(40)]


class World:
    """A worker's items, and users who took some of them."""

    def __init__(self, names: Sequence[str]) -> None:
        self.rows = np.zeros(0, ITEM_ROW)
        self.add(names)

    def add(self, names: Sequence[str]) -> None:
        more = np.zeros(len(names), ITEM_ROW)
        more["hash"] = [stable_hash(name) for name in names]
        self.rows = np.concatenate([self.rows, more])
        size = 4 * len(self.rows) + 16
        self.index = ItemIndex(np.zeros(1 << size.bit_length(), np.uint64), np.zeros(1 << size.bit_length(), np.int32))
        rebuild(*self.index, np.ascontiguousarray(self.rows["hash"]), len(self.rows))

    def seen_with(self, slot: int, others: Sequence[int]) -> None:
        row = self.rows[slot]
        row["n_successors"] = len(others)
        row["successors"][: len(others)] = self.rows["hash"][list(others)]
        row["followed"][: len(others), 0] = 64

    def users(self, *histories: Sequence[tuple[int, int, float]]) -> Histories:
        """Each a sequence of (item slot, type, seconds before now), oldest first."""
        rows, slots = np.full(len(histories), EMPTY_ROW, USER_ROW), np.full((len(histories), N_ITEMS), -1, np.int32)
        for b, history in enumerate(histories):
            rows[b]["n_items"], rows[b]["clock_ms"] = len(history), NOW_MS
            for k, (slot, kind, ago_s) in enumerate(history):
                ticks = to_ticks(NOW_MS) - round(ago_s * 256)
                rows[b]["seconds"][k], rows[b]["fractions"][k] = divmod(ticks, 256)
                rows[b]["types"][k] = kind
                slots[b, k] = slot
                if slot >= 0:
                    rows[b]["items"][k] = self.rows["hash"][slot]
        return Histories(rows, slots, NOW_MS)


def served(release: Release, world: World) -> Recall:
    return Recall(release, world.rows)


def vectors_by_slot(release: Release, world: World) -> np.ndarray:
    place = {int(key): k for k, key in enumerate(release.keys)}
    return np.array([release.vectors[place[h]].copy() for h in world.rows["hash"].tolist()])


def random_history(world: World, length: int, seed: int) -> list[tuple[int, int, float]]:
    random = np.random.default_rng(seed)
    ages = np.sort(random.uniform(0, 20, length))[::-1]
    slots = random.choice(len(world.rows), length, replace=False)
    return [(int(s), int(t), float(a)) for s, t, a in zip(slots, random.integers(0, N_TYPES, length), ages, strict=True)]


def expected(vectors: np.ndarray, history: Sequence[tuple[int, int, float]]) -> np.ndarray:
    ticks = [round(ago_s * 256) / 256 for _, _, ago_s in history]
    gaps = [np.log2(1 + ago - ticks[-1]) for ago in ticks]
    return by_hand(vectors[[s for s, _, _ in history]], [t for _, t, _ in history], gaps)


def test_a_users_vector_is_what_the_network_says_of_his_row() -> None:
    world, release = World(NAMES), release_of(NAMES)
    vectors = vectors_by_slot(release, world)
    histories = [random_history(world, length, length) for length in (1, 2, 7, 40, 23, 23, 3)]
    model = served(release, world)
    found = model.embed(world.users(*histories))
    for b, history in enumerate(histories):
        assert np.allclose(found[b], expected(vectors, history), atol=1e-5)


def test_in_any_company_and_any_order_a_user_has_the_same_vector() -> None:
    world, release = World(NAMES), release_of(NAMES)
    histories = [random_history(world, 1 + k % 40, k) for k in range(100)]
    together = served(release, world).embed(world.users(*histories))
    alone = served(release_of(NAMES), world)
    for b, history in enumerate(histories):
        assert np.allclose(alone.embed(world.users(history))[0], together[b], atol=1e-5)


def test_only_the_newest_items_that_it_knows_are_seen() -> None:
    world = World([*NAMES, "stranger"])
    release = release_of(NAMES, max_len=3)
    vectors = vectors_by_slot(release, World(NAMES))
    history = [(k, 1, 100.0 - k) for k in range(6)]
    with_stranger = [*history[:4], (len(NAMES), 1, 96.0), (-1, 1, 95.5), *history[4:]]
    found = served(release, world).embed(world.users(with_stranger, [(len(NAMES), 1, 0.0)], []))
    assert np.allclose(found[0], expected(vectors, history[-3:]), atol=1e-5)
    assert not found[1:].any()


def test_that_an_item_was_seen_does_not_change_its_type() -> None:
    world, release = World(NAMES), release_of(NAMES)
    found = served(release, world).embed(world.users([(3, 4, 0.0)], [(3, 4 | SEEN, 0.0)]))
    assert np.array_equal(found[0], found[1])


def test_equal_histories_are_computed_once_and_others_always() -> None:
    world = World(NAMES)
    model = served(release_of(NAMES), world)
    history = random_history(world, 10, 1)
    first = model.embed(world.users(history)).copy()
    before = model.graph.n_run
    later = [(s, t, ago_s + 1_000.0) for s, t, ago_s in history]  # the same, a while ago
    assert np.array_equal(model.embed(world.users(history, later)), np.concatenate([first, first]))
    assert model.graph.n_run == before
    changes = [
        history[1:],
        history[::-1],
        [(history[0][0], history[0][1], history[0][2] + 60), *history[1:]],
        [(history[0][0], (history[0][1] + 1) % N_TYPES, history[0][2]), *history[1:]],
    ]
    found = model.embed(world.users(*changes))
    assert model.graph.n_run == before + len(changes)
    assert not any(np.allclose(vector, first[0], rtol=1e-4, atol=0) for vector in found)


@pytest.mark.parametrize("n", [40, 20_000])
def test_candidates_are_the_best_of_all_items(n: int) -> None:
    names = [f"i{k}" for k in range(n)]
    world, release = World(names), release_of(names)
    vectors = vectors_by_slot(release, world)
    model = served(release, world)
    queries = model.embed(world.users(*(random_history(world, 5, seed) for seed in range(50))))
    slots, scores = model.candidates(queries, 20)
    best = np.argsort(-(queries @ vectors.T), axis=1)[:, :20]
    recall = np.mean([len(set(a) & set(b)) / 20 for a, b in zip(slots.tolist(), best.tolist(), strict=True)])
    assert recall == 1.0 if n < 1_000 else recall >= 0.99
    assert np.allclose(scores, np.take_along_axis(queries @ vectors.T, slots, 1), atol=1e-4)


def test_a_release_may_know_ten_times_as_many_items_and_only_ours_are_proposed() -> None:
    many = [f"i{k}" for k in range(10 * len(NAMES))]
    world, release = World(many[5::10]), release_of(many, seed=3)
    vectors = vectors_by_slot(release, world)
    model = served(release, world)
    history = random_history(world, 12, 5)
    users = world.users(history)
    assert np.allclose(model.embed(users)[0], expected(vectors, history), atol=1e-5)
    slots, _ = model.candidates(model.embed(users), len(NAMES))
    assert sorted(slots[0].tolist()) == list(range(len(NAMES)))
    world.add(many[7::10])  # and when they come, they are known at once
    model.items.follow(world.rows, world.index)
    vectors = vectors_by_slot(release_of(many, seed=3), world)
    for seed in range(20):
        history = random_history(world, 12, seed)
        assert np.allclose(model.embed(world.users(history))[0], expected(vectors, history), atol=1e-5)
    slots, scores = model.candidates(model.embed(world.users(history)), 2 * len(NAMES))
    assert sorted(slots[0].tolist()) == list(range(2 * len(NAMES)))
    assert np.allclose(scores[0], vectors[slots[0]] @ expected(vectors, history), atol=1e-4)


def test_items_since_the_release_enter_by_the_mean_of_those_they_were_seen_with() -> None:
    world, release = World(NAMES), release_of(NAMES)
    vectors = vectors_by_slot(release, world)
    model = served(release, world)
    world.add([f"new{k}" for k in range(600)])
    new = len(NAMES)
    model.items.follow(world.rows, world.index)
    assert not model.embed(world.users([(new, 1, 0.0)])).any()
    assert (model.candidates(vectors[:1], 999)[0] < new).all()
    for k in range(600):
        world.seen_with(new + k, [k % 40, (k + 1) % 40])
    for _ in range(100):
        model.items.follow(world.rows, world.index)
    lengths = np.linalg.norm(vectors, axis=1)
    of_new = np.array([vectors[k % 40] + vectors[(k + 1) % 40] for k in range(600)])
    of_new *= (np.array([lengths[k % 40] + lengths[(k + 1) % 40] for k in range(600)]) / 2 / np.linalg.norm(of_new, axis=1))[:, None]
    slots, scores = model.candidates(of_new[:5], 640)
    assert (np.sort(slots, axis=1) == np.arange(640)).all()
    both = np.concatenate([vectors, of_new])
    assert np.allclose(scores, np.take_along_axis(of_new[:5] @ both.T, slots, 1), atol=1e-4)
    history = [(0, 1, 9.0), (new + 599, 1, 0.0)]
    assert np.allclose(model.embed(world.users(history))[0], expected(both, history), atol=1e-5)
    world.seen_with(new + 599, [3])  # it goes on
    for _ in range(100):
        model.items.follow(world.rows, world.index)
    both[new + 599] = vectors[3]
    assert np.allclose(model.embed(world.users(history))[0], expected(both, history), atol=1e-5)


@pytest.mark.parametrize("kind", ["float16", "int8"])
def test_smaller_vectors_are_nearly_the_same(kind: str) -> None:
    world, plain = World(NAMES), release_of(NAMES)
    rows, scales = quantised(plain.vectors)
    small = plain._replace(vectors=rows, scales=scales) if kind == "int8" else plain._replace(vectors=plain.vectors.astype("float16"))
    users = world.users(random_history(world, 10, 1))
    model = served(small, world)
    found = model.embed(users)
    assert np.allclose(found, served(plain, world).embed(users), atol=0.02)
    assert model.items.released.dtype == np.float32


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "cannot be run"),
        (b"nonsense" * 100, "cannot be run"),
        (graph(9), "cannot be run"),
        (graph(8, inputs=("vectors", "types", "ages", "lengths")), "takes"),
        (graph(8, output="items"), "output"),
        (graph(8, width=5), "float32"),
        (graph(8, n_types=4), "cannot be run"),
    ],
)
def test_graphs_that_do_not_fit_are_refused(data: bytes, said: str) -> None:
    with pytest.raises(BadRelease, match=said):
        Recall(release_of(NAMES)._replace(graph=data), np.empty(0, ITEM_ROW))


def test_the_channel_proposes_shares_and_nothing_without_a_model() -> None:
    world = World(NAMES)
    users = world.users(random_history(world, 5, 1), [])
    channel = TransformerRecall(n=10)
    assert channel.propose(users, world.rows, world.index).items.shape == (2, 0)
    channel.model = Recall(release_of(NAMES), world.rows)
    items, shares = channel.propose(users, world.rows, world.index)
    assert items.dtype == np.int32 and shares.dtype == np.float32 and items.shape == shares.shape == (2, 10)
    assert np.isclose(shares[0].sum(), 1) and (np.diff(shares[0]) <= 0).all()
    assert (items[1] == -1).all() and not shares[1].any()


def test_a_worker_without_items_serves_what_will_come() -> None:
    world = World([])
    channel = TransformerRecall(n=10)
    channel.model = served(release_of(NAMES), world)
    assert channel.propose(world.users([]), world.rows, world.index).items.shape == (1, 0)
    world.add(NAMES[:3])
    assert sorted(channel.propose(world.users([(1, 1, 0.0)]), world.rows, world.index).items[0].tolist()) == [0, 1, 2]


def test_nothing_of_this_is_imported_before_a_release_is_served() -> None:
    code = "import sys, streams.worker; print([m for m in ('onnxruntime', 'torch', 'fsspec', 'onnx') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_set_up_compiles_what_a_release_needs() -> None:
    kernels = (
        graph_module._pack,
        recall._histories,
        item_vectors._bring_forward,
        item_vectors._mean,
        two_stage._best,
    )
    recall.compile_kernels()
    world = World([f"i{k}" for k in range(4_000, 9_500)])
    model = served(release_of([f"i{k}" for k in range(4_500, 10_000)]), world)
    world.seen_with(0, [700])
    model.items.follow(world.rows, world.index)
    assert model.candidates(model.embed(world.users([(0, 1, 5.0), (800, 1, 0.0)])), 10)[0].shape == (1, 10)
    assert [len(kernel.signatures) for kernel in kernels] == [1] * len(kernels)  # those of set-up are those of use


def test_a_machine_without_the_runtime_says_so() -> None:
    code = (
        "import sys; sys.modules['onnxruntime'] = None\n"  # as where no wheel fits
        "from models.graph import Graph\nfrom models.release import BadRelease, Shape\n"
        "try: Graph(b'', Shape(1, 1, 1, 1))\nexcept BadRelease as error: print(error)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install onnxruntime" in found.stdout

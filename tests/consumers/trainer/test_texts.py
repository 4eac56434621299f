"""Items by what is said of them: which attribute counts, ready vectors, and items that nobody has taken in a release."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from consumers.trainer.texts import WIDTH, make_texts
from infra.settings import Settings, SettingsError
from models.hashing import stable_hash
from models.texts import hashed
from streams.catalogue import ItemAttributes
from tests.consumers.trainer.worlds import QUICK, RING, events


def items(**of: dict[str, Any]) -> Iterator[tuple[str, ItemAttributes]]:
    for item, said in of.items():
        yield item, ItemAttributes(**said)


def test_title_category_and_properties_are_hashed_together() -> None:
    said = {"a": {"title": "Red shirt", "category": "Clothes", "properties": {"tags": ["cotton", 3], "price": 9.9}}, "b": {"category": "Clothes"},
            "c": {"properties": {"x": 1}}, "d": {}}
    found = make_texts(items(**said), "title, category, tags")
    assert found.keys.tolist() == [stable_hash("a"), stable_hash("b")] and found.vectors.shape == (2, WIDTH)
    assert np.allclose(found.vectors, hashed(["red shirt clothes cotton 3", "clothes"], WIDTH))


def test_ready_vectors_of_the_usual_length() -> None:
    said = {"a": {"properties": {"emb": [3.0, 4.0]}}, "b": {"properties": {"emb": [0, 2]}}, "c": {"properties": {"emb": [1.0]}}, "d": {"properties": {"emb": "no"}},
            "e": {"properties": {"emb": [0.0, 0.0]}}, "f": {"properties": {"emb": [[1.0, 2.0]]}}, "g": {"title": "none"},
            "h": {"properties": {"emb": [10**400, 1]}}, "i": {"properties": {"emb": [3e-30, 4e-30]}}, "j": {"properties": {"emb": [3e200, 4e200]}}}
    found = make_texts(items(**said), "vector:emb")
    assert found.keys.tolist() == [stable_hash(item) for item in "abij"] and np.allclose(found.vectors, [[0.6, 0.8], [0, 1], [0.6, 0.8], [0.6, 0.8]])
    assert make_texts(items(g={"title": "none"}), "vector:emb").vectors.shape == (0, 0)
    with pytest.raises(SettingsError, match="stands alone"):
        make_texts(items(**said), "title,vector:emb")


def test_an_item_that_nobody_took_is_in_the_release_where_its_text_puts_it(tmp_path: Path) -> None:
    """In the ring item k is followed by k + 1; texts name places, and a twin of each item has its text and no events."""
    pytest.importorskip("torch")
    from consumers.backtest.files import load_file
    from consumers.trainer.recorded import train_recorded
    from models.graph import Graph
    from models.graph import Sequences as Histories
    from models.release import dense, read

    def said(kind: str, n: int) -> str:
        return json.dumps({"item_id": f"{kind}{n}", "title": f"place{n:03d} of{n * 7 % 30:03d}"}) + "\n"

    (tmp_path / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events(1, 250)))
    (tmp_path / "items.jsonl").write_text("".join(said(kind, n) for kind in ("i", "twin") for n in range(RING)) + '{"item_id": "silent"}\n{"title": "nobody"}\n')
    log = load_file(tmp_path / "events.jsonl", dict.fromkeys(("user", "item", "time", "type", "value", "basket", "category"))).log
    settings = Settings(train_folder=str(tmp_path / "trainer"), models_store=str(tmp_path / "models"), train_model=QUICK, train_text="title")
    with pytest.raises(SettingsError, match="name a file of them, --items FILE"):
        train_recorded(settings, log)
    version, verdict = train_recorded(settings, log, items=tmp_path / "items.jsonl")
    assert verdict.passed
    release = read(settings.store(), version)
    assert release.manifest.data["n_items"] == RING and release.manifest.data["n_text_items"] == RING and len(release.keys) == 2 * RING
    place = {key: k for k, key in enumerate(release.keys.tolist())}
    twins = np.array([place[stable_hash(f"twin{n}")] for n in range(RING)])
    vectors = dense(release)
    learned = vectors[[place[stable_hash(f"i{n}")] for n in range(RING)]]
    assert ((vectors[twins] @ learned.T).argmax(1) == np.arange(RING)).mean() > 0.8, "a twin lies beside the item that has its text"
    histories = Histories(twins[:, None].astype(np.int32), np.zeros((RING, 1), np.uint8), np.zeros((RING, 1), np.int64), np.ones(RING, np.int64),
                          np.zeros(RING, np.uint64))
    users = Graph(release.graph, release.manifest.shape).users(histories, vectors, np.empty((0, release.manifest.shape.d), np.float32))
    ranks = ((users @ learned.T) >= (users * learned[(np.arange(RING) + 1) % RING]).sum(1)[:, None]).sum(1)
    assert (ranks <= 3).mean() > 0.8, "and who has had nothing but a twin is told of what comes next"
    third, _ = train_recorded(dataclasses.replace(settings, train_text=""), log)
    assert len(read(str(Path(settings.train_folder) / "recorded" / "trainings" / third / "candidate"), third).keys) == RING

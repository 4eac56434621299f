"""From weights to a release: graph, vectors, and what the manifest says of them; rounded to int8 where that is wanted."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Mapping
from typing import Any

import numpy as np

from consumers.trainer.window import Window
from models.release import Manifest, Release, Shape, quantised
from models.transformer.weights import Weights


def make_release(window: Window, weights: Weights, *, version: str, parent: str | None, seed: int, facts: Mapping[str, Any]) -> Release:
    """The release in float32: the items that were learned, then those known by their text alone. facts: what else is known of its data."""
    from models.transformer.export import item_vectors, text_vectors, to_onnx

    vectors, model = item_vectors(weights), weights.model
    if len(window.more_keys):
        vectors = np.concatenate([vectors, text_vectors(weights, window.more_texts)])
    manifest = Manifest(
        version=version, parent=parent, code_version=_code_version(), seeds={"train": seed}, data={**window.facts, **facts},
        config={"model": dataclasses.asdict(model), "train": dataclasses.asdict(weights.train)},
        shape=Shape(len(vectors), model.d, model.max_len, model.n_types))
    return Release(manifest, vectors, np.concatenate([window.keys, window.more_keys]), to_onnx(weights))


def rounded(release: Release, what: str) -> Release:
    """The same as the setting `train_rounding` wants it: `off`, `vectors`, or `all`."""
    if what == "off":
        return release
    vectors, scales = quantised(release.vectors)
    graph = release.graph
    if what == "all":
        from models.transformer.export import quantise

        graph = quantise(graph)
    return release._replace(vectors=vectors, scales=scales, graph=graph)


def _code_version() -> str:
    try:
        return importlib.metadata.version("streamrec")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"

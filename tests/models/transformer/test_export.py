"""The graph in ONNX Runtime against the model in torch, at any batch and length; int8 against float32."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'streamrec[train]'")
for package in ("onnx", "onnxruntime"):
    pytest.importorskip(package, reason=f"{package} is not installed: pip install 'streamrec[train]'")

import onnxruntime  # noqa: E402

from models.transformer.config import ModelConfig, TrainConfig  # noqa: E402
from models.transformer.data import Sequences, batch, one_a_row  # noqa: E402
from models.transformer.evaluation import build  # noqa: E402
from models.transformer.export import INPUTS, item_vectors, quantise, to_onnx  # noqa: E402
from models.transformer.model import Model, visibility  # noqa: E402
from models.transformer.training import to_tensors  # noqa: E402
from models.transformer.weights import Weights  # noqa: E402
from tests.models.transformer.worlds import N_ITEMS, ragged  # noqa: E402

CONFIG = ModelConfig(d=64, n_blocks=2, max_len=12, block="ligr", n_types=3, time=True)
CONFIGS = [CONFIG, replace(CONFIG, n_blocks=1, block="hstu", head="dot", n_types=0, time=False)]


def weights_of(config: ModelConfig) -> Weights:
    torch.manual_seed(5)
    model = Model(config, N_ITEMS)
    for value in model.parameters():
        torch.nn.init.normal_(value, std=0.3)
    return Weights({name: value.numpy() for name, value in model.state_dict().items()}, config, TrainConfig())


@pytest.fixture(scope="module", params=CONFIGS, ids=lambda config: config.block)
def exported(request: pytest.FixtureRequest) -> tuple[Weights, bytes]:
    weights = weights_of(request.param)
    return weights, to_onnx(weights)


def asked(weights: Weights, histories: Sequences) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Users by torch as training sees histories, and the same histories as the graph takes them."""
    where = one_a_row(histories, weights.model.max_len)
    length = int(where.size.max())
    rows = batch(histories, where, np.arange(where.n_rows), length)
    items, types, ages, windows = to_tensors(torch.device("cpu"), rows.items, rows.types, rows.ages, rows.windows)
    model = build(weights).cpu()
    with torch.no_grad():
        users = model(model.vectors(items), types, ages, visibility(windows)).numpy()
    left = length - where.size
    inputs = {"vectors": item_vectors(weights)[rows.items], "types": rows.types.astype(np.int64), "gaps": np.log2(1 + rows.ages).astype(np.float32)}
    shifted = {name: np.stack([np.concatenate([np.zeros_like(row[:left[k]]), row[:len(row) - left[k]]]) for k, row in enumerate(value)]) for name, value in inputs.items()}
    if weights.model.n_types:
        shifted["types"][np.arange(length) < left[:, None]] = weights.model.n_types
    return users[np.arange(where.n_rows), where.size - 1], shifted | {"lengths": where.size}


@pytest.mark.parametrize(("n_users", "longest"), [(1, 2), (30, 5), (64, 25)])
def test_the_graph_gives_what_torch_gives(exported: tuple[Weights, bytes], n_users: int, longest: int) -> None:
    weights, graph = exported
    histories = ragged(n_users + 1, n_users * 2, longest + 1)
    histories = histories.take(np.flatnonzero(histories.ends > histories.starts))
    wanted, inputs = asked(weights, histories)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    assert {i.name for i in session.get_inputs()} == set(INPUTS)
    users = session.run(None, inputs)[0]
    assert users.shape == wanted.shape and np.abs(users - wanted).max() < 1e-5 * max(1.0, float(np.abs(wanted).max()))
    alone = session.run(None, {name: value[:1, -int(inputs["lengths"][0]):] if value.ndim > 1 else value[:1] for name, value in inputs.items()})[0]
    assert np.allclose(alone, users[:1], atol=1e-5)  # padding and company change nothing


def test_int8_is_near(exported: tuple[Weights, bytes]) -> None:
    weights, graph = exported
    small = quantise(graph)
    wanted, inputs = asked(weights, ragged(9).take(np.arange(2, 8)))
    users = onnxruntime.InferenceSession(small, providers=["CPUExecutionProvider"]).run(None, inputs)[0]
    cosine = (users * wanted).sum(1) / np.linalg.norm(users, axis=1) / np.linalg.norm(wanted, axis=1)
    assert len(small) < len(graph) and cosine.min() > 0.995

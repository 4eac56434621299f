"""`streamrec models` without servers: what it says of wrong words, of a store, and of releases that are damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infra.cli.models import show
from models.release import write
from tests.infra.test_cli import NOWHERE, Run, one_sentence, streamrec  # noqa: F401 - a fixture
from tests.models.graphs import graph, release_of


@pytest.mark.parametrize(("args", "said"), [
    (("models",), "required: action"),
    (("models", "delete"), "invalid choice: 'delete'"),
    (("models", "show"), "needs a version"),
    (("models", "promote"), "needs a version"),
    (("models", "show", "3fa2c1"), "no release '3fa2c1'; there is none at all"),
    (("models", "show", "x", "--store", "nosuch://there"), "cannot be used"),
])
def test_wrong_words(streamrec: Run, args: tuple[str, ...], said: str) -> None:  # noqa: F811
    assert said in one_sentence(streamrec(*args))


def test_releases_are_shown_by_how_they_end_and_damaged_ones_are_not_promoted(streamrec: Run, tmp_path: Path) -> None:  # noqa: F811
    store = tmp_path / "models"  # the default, in the stack's folder
    version, other = (write(str(store), release_of(["i1", "i2"], metrics={"candidate": {"ndcg@10": 0.125}})) for _ in range(2))
    done = streamrec("models", "show", version[-6:])
    assert done.returncode == 0 and json.loads(done.stdout)["version"] == version
    assert "2 releases like '20'" in one_sentence(streamrec("models", "show", "20"))
    (store / other / "vectors.npy").write_bytes(b"")
    assert "vectors.npy" in one_sentence(streamrec("models", "promote", other, **NOWHERE))
    misfit = write(str(store), release_of(["i1"])._replace(graph=graph(3)))
    assert "graph" in one_sentence(streamrec("models", "promote", misfit, **NOWHERE))
    assert "Kafka at 127.0.0.1:1 does not answer" in one_sentence(streamrec("models", "promote", version, **NOWHERE))
    assert "does not answer" in one_sentence(streamrec("models", "list", **NOWHERE))


def test_the_list_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    of = {"created_ms": 0, "bytes": 3 * 2**20, "n_items": 20_000, "d": 64, "metrics": {"candidate": {"ndcg@10": 0.125, "by": "day"}}, "error": None}
    show({"store": "/s", "announced": {"version": "b", "store": "/s"}, "workers": {"w1": "b", "w2": None},
          "refused": {"w2": {"version": "c", "why": "damaged"}}, "releases": [{"version": "a", "error": "no file"}, {"version": "b", **of}]})
    shown = capsys.readouterr().out
    assert "3.0 MiB" in shown and "announced, 1 of 2" in shown and "ndcg@10=0.125" in shown and "no file" in shown
    assert "1 of 2 workers serve no release" in shown and "w2 has refused c: damaged" in shown

"""Hashed texts: the same everywhere, near where words are shared, whatever the alphabet."""

from __future__ import annotations

import numpy as np
import pytest

from models.texts import hashed


def test_words_that_are_shared_make_texts_near() -> None:
    texts = ["Whole milk, 1 gallon", "Skim milk 1 gallon", "Salted pretzels", "salted PRETZEL", "Diapers size 3"]
    vectors = hashed(texts, 256)
    near = vectors @ vectors.T
    assert near[0, 1] > 0.4 and near[2, 3] > 0.6
    assert np.abs(near[[0, 0, 2, 3], [2, 4, 4, 4]]).max() < 0.3
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)


def test_they_are_the_same_in_every_version() -> None:
    (vector,) = hashed(["milk"], 16)
    assert np.flatnonzero(vector).tolist() == [2, 6, 11] and np.allclose(vector[[2, 6, 11]], [0.628, 0.46, 0.628], atol=1e-3)




@pytest.mark.parametrize("text", ["", "  ", "--- !", "\ud800"])
def test_what_has_no_words_has_no_vector(text: str) -> None:
    assert not hashed([text], 8).any()


def test_any_alphabet() -> None:
    one, two, other = hashed(["Молоко цельное", "молоко", "牛乳"], 256)
    assert one @ two > 0.5 and abs(one @ other) < 0.3 and other.any()
    assert hashed([], 8).shape == (0, 8)

"""Texts of items as vectors, without a model: words and pieces of words, hashed (Weinberger et al. 2009).

Equal texts give equal vectors on every machine, and texts that share words near ones. What the words mean is learned behind it: a
network multiplies the vector by a matrix (models/transformer/model.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
import xxhash

WORD = re.compile(r"\w+")
#: Pieces of a word, by which "pretzel" and "pretzels" are near each other; together they weigh as much as the word.
PIECE = 4


def hashed(texts: Iterable[str], width: int) -> np.ndarray:
    """Texts as (n, width) float32 of length 1; zeros for a text without words.

    >>> milk, more, rum = hashed(["Whole milk", "milk, whole", "Rum"], 64)
    >>> bool((milk == more).all()), round(float(milk @ rum), 1)
    (True, 0.0)
    """
    known: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    rows = []
    for text in texts:
        row = np.zeros(width, np.float32)
        for word in set(WORD.findall(text.lower())):
            if word not in known:
                known[word] = _features(word, width)
            places, weights = known[word]
            np.add.at(row, places, weights)
        rows.append(row)
    found = np.array(rows, np.float32).reshape(len(rows), width)
    found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
    return found


def _features(word: str, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Where a word counts, and by how much: itself, and its pieces."""
    whole = f"<{word}>"
    pieces = {whole[k : k + PIECE] for k in range(len(whole) - PIECE + 1)} - {whole}
    hashes = [xxhash.xxh3_64_intdigest(part.encode("utf-8", "surrogatepass")) for part in (f" {word}", *sorted(pieces))]
    weights = [1.0, *[max(1, len(pieces)) ** -0.5] * len(pieces)]
    signs = [1.0 if found >> 63 else -1.0 for found in hashes]
    return np.array([found % width for found in hashes]), np.array(weights, np.float32) * np.array(signs, np.float32)

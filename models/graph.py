"""A release's network: users' histories in, users' vectors out, by ONNX Runtime on one core.

Histories come as places of item vectors, event types and times. They are run in small batches of about equal length: what
is computed for padding is lost, and a batch that leaves the second cache is slower by half. Equal histories give equal
vectors, so vectors of the last ones are kept: lists that are made anew without a new event, and all those users
who have only begun, cost nothing.

What goes in and out of the graph: `vectors` (B, L, d) float32, oldest first, zeros before them; `types` (B, L) int64, n_types where
there is nothing; `gaps` (B, L) float32, log2(1 + seconds to the history's newest event); `lengths` (B,) int64 -> `users` (B, d).
"""

from __future__ import annotations

from typing import NamedTuple

import numba as nb
import numpy as np

from models.manifest import BadRelease, Shape
from models.onnx_runtime import session
from models.user_row import N_TYPES

#: Positions of one run, 16 users of 50 items; and how long the shortest history of a run is at least, as a share of the longest.
N_POSITIONS, NEAR = 800, 0.7
#: Histories whose vectors are kept: 4 MB of them at d 64.
N_KEPT = 16_384
INPUTS = {"vectors": "tensor(float)", "types": "tensor(int64)", "gaps": "tensor(float)", "lengths": "tensor(int64)"}
OUTPUT = "users"
#: How far padding may change a user's vector, as a share of its largest number: 8-bit graphs round by what else is in the batch, which was
#: 0.7%; where padding is not masked, it is all of it.
PADDING_ERROR = 0.05


class Sequences(NamedTuple):
    """Histories of B users, oldest first from column 0 on. `places` (B, L) int32: rows of the item vectors; `types` (B, L) uint8;
    `ticks` (B, L) int64 event times in 1/256 s; `lengths` (B,) int64; `names` (B,) uint64: a hash of all that, 0: not to be kept."""

    places: np.ndarray
    types: np.ndarray
    ticks: np.ndarray
    lengths: np.ndarray
    names: np.ndarray


@nb.njit(cache=True, nogil=True)
def _pack(
    of: Sequences,
    users: np.ndarray,
    released: np.ndarray,
    new: np.ndarray,
    n_types: int,
    vectors: np.ndarray,
    types: np.ndarray,
    gaps: np.ndarray,
) -> None:
    """Fill the graph's inputs for some of the users; places beyond the released vectors are of the new ones."""
    length = vectors.shape[1]
    n_released = released.shape[0]
    for k in range(users.shape[0]):
        b = users[k]
        n = of.lengths[b]
        free = length - n
        vectors[k, :free] = 0
        types[k, :free] = n_types
        gaps[k, :free] = 0
        newest = of.ticks[b, n - 1] if n else 0
        for j in range(n):
            place = of.places[b, j]
            if place < n_released:
                vectors[k, free + j] = released[place]
            else:
                vectors[k, free + j] = new[place - n_released]
            types[k, free + j] = of.types[b, j]
            gaps[k, free + j] = np.log2(np.float32(1.0) + np.float32(newest - of.ticks[b, j]) / np.float32(256.0))


def pack(of: Sequences, users: np.ndarray, released: np.ndarray, new: np.ndarray, n_types: int) -> tuple[np.ndarray, ...]:
    """What the graph takes for the histories `users` of all these: vectors, types, gaps, lengths."""
    lengths = of.lengths[users]
    shape = (len(users), int(lengths.max()))
    inputs = np.empty((*shape, released.shape[1]), np.float32), np.empty(shape, np.int64), np.empty(shape, np.float32)
    _pack(of, users, released, new, n_types, *inputs)
    return *inputs, lengths


class Graph:
    """The network. Raises BadRelease for a graph that cannot be read, or gives something else than its shape tells."""

    def __init__(self, data: bytes, shape: Shape) -> None:
        self.shape = shape
        self._kept = np.zeros(N_KEPT, np.uint64), np.zeros((N_KEPT, shape.d), np.float32)
        self.n_run = 0  # users whose vectors were computed
        try:
            self._session = session(data)
            self._try_out()
        except BadRelease:
            raise
        except Exception as error:  # whatever its C++ throws: it has no root of its own
            raise BadRelease(f"the graph cannot be run: {str(error).strip().splitlines()[0][:300]}") from None

    def _try_out(self) -> None:
        """Run it as it will be run: short and long, alone and in a batch, with and without padding."""
        found = {node.name: node.type for node in self._session.get_inputs()}
        wrong = any(INPUTS.get(name) != kind for name, kind in found.items()) or "vectors" not in found
        if wrong or OUTPUT not in [node.name for node in self._session.get_outputs()]:
            raise BadRelease(f"the graph takes {found}, expected {INPUTS} and an output {OUTPUT!r}")
        self._inputs = tuple(found)  # a model that looks at no types, or no times, may not ask for them
        n, d, (_, _, longest, n_types) = 3, self.shape.d, self.shape
        vectors = np.random.default_rng(0).standard_normal((n, longest, d), np.float32)
        kinds, gaps = np.arange(n * longest).reshape(n, longest) % N_TYPES, np.ones((n, longest), np.float32)
        half = max(1, longest // 2)
        lengths = np.array([longest, half, 1], np.int64)
        for k in range(n):
            free = longest - lengths[k]
            vectors[k, :free], kinds[k, :free], gaps[k, :free] = 0, n_types, 0
        users = self._run(vectors, kinds, gaps, lengths)
        if users.shape != (n, d) or users.dtype != np.float32 or not np.isfinite(users).all():
            raise BadRelease(f"the graph gives {users.dtype} of shape {users.shape} for {n} users, expected float32 of ({n}, {d})")
        for k, length in enumerate(lengths.tolist()):
            alone = self._run(
                vectors[k : k + 1, -length:], kinds[k : k + 1, -length:], gaps[k : k + 1, -length:], lengths[k : k + 1]
            )
            if np.abs(alone[0] - users[k]).max() > PADDING_ERROR * np.abs(users[k]).max():
                raise BadRelease("the graph's answer for a user depends on the padding before his history")

    def _run(self, vectors: np.ndarray, types: np.ndarray, gaps: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        given = {"vectors": vectors, "types": types, "gaps": gaps, "lengths": lengths}
        users: np.ndarray = self._session.run([OUTPUT], {name: given[name] for name in self._inputs})[0]
        return users

    def forget(self) -> None:
        """Keep nothing of what was computed."""
        self._kept[0][:] = 0

    def users(self, of: Sequences, released: np.ndarray, new: np.ndarray) -> np.ndarray:
        """Vectors of B users, (B, d) float32; zeros for an empty history. Places of `of` count `released`, then `new`."""
        names, kept = self._kept
        cells = (of.names % np.uint64(N_KEPT)).astype(np.int64)
        vectors = kept[cells]
        known = (names[cells] == of.names) & (of.names != 0)
        vectors[~known] = 0
        wanted = np.flatnonzero(~known & (of.lengths > 0))
        wanted = wanted[np.argsort(of.lengths[wanted], kind="stable")]
        self.n_run += len(wanted)
        lengths, last = of.lengths[wanted], len(wanted)
        while last:  # from the longest on: it decides how many go together
            longest = int(lengths[last - 1])
            first = max(last - max(1, N_POSITIONS // longest), int(np.searchsorted(lengths, NEAR * longest)), 0)
            some, last = wanted[first:last], first
            vectors[some] = self._run(*pack(of, some, released, new, self.shape.n_types))
        named = wanted[of.names[wanted] != 0]
        names[cells[named]], kept[cells[named]] = of.names[named], vectors[named]
        return vectors

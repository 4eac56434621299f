"""One user's row: a fixed-size record, the same bytes in memory and in Redis, and its Bloom filter."""

from __future__ import annotations

import numba as nb
import numpy as np

from models.row_formats import RowFormat

#: As many as leave row and list of a user below 4,000 bytes in Redis. On grocery purchases 64 instead of 32 items are
#: worth 12% more hits (docs/design.md): what a person takes again is the strongest signal there is where things repeat.
N_ITEMS = 42
N_EVENT_IDS = 64
#: Items that a full row has dropped and of which it still knows how much they weighed.
N_GHOSTS = 70
N_TYPES = 9
BLOOM_WORDS = 32
ROW_VERSION = 2

#: Event times are kept to 1/256 s since 1990, in 5 bytes.
EPOCH_MS = 631_152_000_000
#: Bit of `types`: by the type of some event of it, the item is not to be shown again.
SEEN = 128

#: One user, the same bytes in memory and in Redis.
USER_ROW = np.dtype(
    [
        ("version", "<u2"),
        ("n_items", "u1"),
        ("next_id", "u1"),
        ("counts", "<u4", (N_TYPES,)),
        ("as_of", "<i8"),  # offset of the last event absorbed, -1 in an empty row
        ("clock_ms", "<i8"),  # latest event time
        ("items", "<u8", (N_ITEMS,)),
        ("seconds", "<u4", (N_ITEMS,)),  # time of the item's last event, with `fractions`
        ("weights", "<f4", (N_ITEMS,)),
        ("event_ids_low", "<u4", (N_EVENT_IDS,)),  # 40 bits of each id's hash, with `event_ids_high`:
        ("bloom", "<u8", (BLOOM_WORDS,)),
        ("ghosts", "<u2", (N_GHOSTS,)),  # fingerprint of the item
        ("ghost_weights", "<u2", (N_GHOSTS,)),  # see `models.ghosts`; 0: empty
        ("event_ids_high", "u1", (N_EVENT_IDS,)),  # a new id is taken for a known one once in 1.7e10 events
        ("fractions", "u1", (N_ITEMS,)),
        ("types", "u1", (N_ITEMS,)),  # of the item's last event, and SEEN
        ("reserved", "u1", (4,)),  # fills the row up to 8 bytes: padding would hold what lay there before
    ],
    align=True,
)

#: What is written and read; a new layout puts the one before into `older`.
FORMAT = RowFormat(ROW_VERSION, USER_ROW)

EMPTY_ROW = np.zeros((), USER_ROW)
EMPTY_ROW["version"] = ROW_VERSION
EMPTY_ROW["as_of"] = -1


@nb.njit(cache=True, nogil=True)
def to_ticks(time_ms: int) -> int:
    """Epoch ms as 1/256 s since 1990."""
    return (time_ms - EPOCH_MS) * 256 // 1000


@nb.njit(cache=True, nogil=True)
def ticks_at(row: np.void, k: int) -> int:
    """Time of the last event of the k-th item, in 1/256 s since 1990."""
    return int(np.int64(row["seconds"][k]) * 256 + np.int64(row["fractions"][k]))


@nb.njit(cache=True, nogil=True)
def age_ms(row: np.void, k: int, now_ms: int) -> int:
    """How long before `now_ms` the last event of the k-th item was; negative: after."""
    return (to_ticks(now_ms) - ticks_at(row, k)) * 1000 // 256


@nb.njit(cache=True, nogil=True)
def clear_row(row: np.void) -> None:
    """Make a row empty; `as_of` stays, it guards against redelivery, and so does the version, which in memory is always ours."""
    row["n_items"] = 0
    row["next_id"] = 0
    row["clock_ms"] = 0
    row["counts"][:] = 0
    row["items"][:] = 0
    row["seconds"][:] = 0
    row["fractions"][:] = 0
    row["weights"][:] = 0
    row["types"][:] = 0
    row["event_ids_low"][:] = 0
    row["event_ids_high"][:] = 0
    row["bloom"][:] = 0
    row["ghosts"][:] = 0
    row["ghost_weights"][:] = 0


@nb.njit(cache=True, nogil=True)
def bloom_has(bloom: np.ndarray, item: np.uint64) -> bool:
    """Whether `item` may have been added (false positives only: 1% at 150 items, 5% at 300)."""
    for k in range(3):
        bit = (item >> np.uint64(11 * k)) & np.uint64(2047)
        if not (bloom[bit >> np.uint64(6)] >> (bit & np.uint64(63))) & np.uint64(1):
            return False
    return True


@nb.njit(cache=True, nogil=True)
def bloom_add(bloom: np.ndarray, item: np.uint64) -> None:
    """Add `item` to the filter."""
    for k in range(3):
        bit = (item >> np.uint64(11 * k)) & np.uint64(2047)
        bloom[bit >> np.uint64(6)] |= np.uint64(1) << (bit & np.uint64(63))

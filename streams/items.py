"""The items' side: every item's row, folded from the whole of `interactions` in log order.

Every worker holds all rows (a replicated state machine): what a fold reads lies in the message or in the rows of that
partition, so replicas are equal by construction. Items belong to partition `hash mod n`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import msgspec
import numba as nb
import numpy as np

from infra.settings import Settings, StreamrecError
from models.hashing import find_slot, put_slot, rebuild, stable_hash
from models.history import RECORD
from models.item_rows import DAY_MS, FORMAT, ITEM_ROW, MAX_ID_BYTES, N_SUCCESSORS, ItemRules, fold, item_rules
from models.records import stacked
from models.row_formats import UnknownRow, read
from streams.interactions import ForeignMessage, Section, unpack
from streams.user_table import remedy


log = logging.getLogger(__name__)


class NewerItemRow(StreamrecError):
    """An item row in Redis was written by a newer version of the worker."""


@nb.njit(cache=True, nogil=True)
def _slots_of(
    keys: np.ndarray, cells: np.ndarray, rows: np.ndarray, n: int, hashes: np.ndarray, slots: np.ndarray
) -> int:
    """Fill `slots` with the slot of each hash, new ones from `n` on; returns the new number of items."""
    for r in range(hashes.shape[0]):
        slot = find_slot(keys, cells, hashes[r])
        if slot < 0:
            slot = n
            put_slot(keys, cells, hashes[r], slot)
            rows[slot]["hash"] = hashes[r]
            rows[slot]["as_of"] = -1
            n += 1
        slots[r] = slot
    return n


class ItemTable:
    """Rows of all items and their names. Arrays are indexed by slot; slots are never reused."""

    def __init__(self, settings: Settings) -> None:
        n = settings.partitions
        self.n_partitions = n
        self.rules: ItemRules = item_rules(
            settings.popularity_half_life_s * 1000, settings.covisitation_half_life_s * 1000
        )
        self.n_items = 0
        self.rows = np.zeros(0, ITEM_ROW)
        self.changed = np.zeros(0, np.uint8)  # differs from what its keeper has written
        self.visible = np.zeros(0, np.uint8)  # has a name and is neither hidden nor expired
        self.ids: list[str] = []
        self.quoted: list[bytes] = []  # the id as a JSON string
        self.keys = np.zeros(0, np.uint64)
        self.cells = np.zeros(0, np.int32)
        self.position = np.zeros(n, np.int64)  # next offset of each interactions partition
        self.highest = np.full((n, n), -1, np.int64)  # [interactions partition, events partition]: last source folded
        self.clock_ms = 0  # event time
        self.n_folded = 0
        self.n_foreign = 0  # messages that no worker has written
        self.topic_id = ""  # of the log that is folded
        self._reserve(4096)

    def _reserve(self, n_items: int) -> None:
        """Make room for `n_items` without moving a slot."""
        if n_items <= len(self.rows):
            return
        capacity = max(4096, 1 << (n_items - 1).bit_length())
        rows = np.zeros(capacity, ITEM_ROW)
        rows[: self.n_items] = self.rows[: self.n_items]
        changed, visible = np.zeros(capacity, np.uint8), np.zeros(capacity, np.uint8)
        changed[: self.n_items] = self.changed[: self.n_items]
        visible[: self.n_items] = self.visible[: self.n_items]
        self.rows, self.changed, self.visible = rows, changed, visible
        self.keys, self.cells = np.zeros(4 * capacity, np.uint64), np.zeros(4 * capacity, np.int32)
        rebuild(self.keys, self.cells, rows["hash"], self.n_items)

    def slot_of(self, item_id: str) -> int:
        """Slot of an item, or -1."""
        return int(find_slot(self.keys, self.cells, np.uint64(stable_hash(item_id))))

    def slots_of(self, hashes: np.ndarray) -> np.ndarray:
        """Slots of items by hash, (n,) uint64 -> (n,) int32; unknown ones get a row."""
        self._reserve(self.n_items + len(hashes))
        slots = np.empty(len(hashes), np.int32)
        n = _slots_of(self.keys, self.cells, self.rows, self.n_items, hashes, slots)
        self.rows["version"][self.n_items : n] = FORMAT.version
        self._grow_names(n)
        return slots

    def _grow_names(self, n: int) -> None:
        self.ids.extend([""] * (n - self.n_items))
        self.quoted.extend([b""] * (n - self.n_items))
        self.n_items = n

    def add(self, item_id: str) -> int:
        """Slot of an item that the catalogue names; an unknown one gets an empty row."""
        slot = self.slot_of(item_id)
        if slot < 0:
            slot = int(self.slots_of(np.array([stable_hash(item_id)], np.uint64))[0])
        if not self.ids[slot]:
            self._name(slot, item_id)
        return slot

    def _name(self, slot: int, item_id: str) -> None:
        self.ids[slot] = item_id
        self.quoted[slot] = msgspec.json.encode(item_id)
        self.visible[slot] = 1

    def fold(self, partition: int, offset: int, value: bytes | None) -> list[int]:
        """Fold one message of `interactions`; returns the slots that got their name by it.

        What was folded before changes nothing: a worker may die after sending, and another absorb the same events again.
        """
        if offset < self.position[partition]:
            return []
        try:
            message = unpack(value, partition, self.n_partitions)
        except ForeignMessage as error:
            self.pass_over(partition, offset, str(error))
            return []
        self.position[partition] = offset + 1
        fresh = [self._beyond_highest(partition, section) for section in message.sections]
        records = stacked(fresh, RECORD)
        if not len(records):
            return []
        slots = self.slots_of(records["item"])
        named = []
        ids = self.ids
        for item, text in message.names.items():
            slot = find_slot(self.keys, self.cells, np.uint64(item))
            if slot < 0:  # of a section that was folded before
                continue
            if not self.rows[slot]["id_bytes"]:
                self.rows[slot]["id_bytes"] = len(text)
                self.rows[slot]["id"][: len(text)] = np.frombuffer(text, np.uint8)
            if not ids[slot]:
                self._name(slot, text.decode())
                named.append(int(slot))
        fold(self.rows, slots, records, offset, self.rules, self.changed)
        newest = int(records["time_ms"].max())
        # one event with a wrong clock moves the windows by a day at most
        self.clock_ms = newest if self.clock_ms == 0 else max(self.clock_ms, min(newest, self.clock_ms + DAY_MS))
        self.n_folded += len(records)
        return named

    def pass_over(self, partition: int, offset: int, why: str) -> None:
        """A message that no worker has written."""
        if offset >= self.position[partition]:
            self.position[partition] = offset + 1
            self.n_foreign += 1
            log.warning("interactions partition %d offset %d is passed over: %s", partition, offset, why)

    def _beyond_highest(self, partition: int, section: Section) -> np.ndarray:
        """The source guard: what a section says that no earlier message has said; from now on it has been said."""
        highest = self.highest[partition, section.partition]
        records = section.records
        last = section.base + int(records["source"][-1])
        if section.base <= highest:
            records = records[np.searchsorted(records["source"], highest - section.base, side="right") :]
        self.highest[partition, section.partition] = max(highest, last)
        return records

    def load(self, partition: int, rows: Iterable[bytes], offset: int, highest: Sequence[int], clock_ms: int) -> None:
        """Take a partition's rows and checkpoint as its keeper wrote them; rows may be ahead of the checkpoint."""
        try:
            loaded = read(list(rows), FORMAT)
        except UnknownRow as error:
            raise NewerItemRow(
                f"an item row of version {error.version} with {error.n_bytes} bytes lies in Redis, this worker reads version"
                f" {FORMAT.version} with {ITEM_ROW.itemsize}: {remedy(error.version, FORMAT)}"
            ) from None
        if (loaded["n_successors"] > N_SUCCESSORS).any() or (loaded["id_bytes"] > MAX_ID_BYTES).any():
            raise NewerItemRow("an item row in Redis holds numbers that no worker writes: something else wrote to our keys")
        slots = self.slots_of(loaded["hash"].copy())
        self.rows[slots] = loaded
        texts = loaded["id"].tobytes()
        for k, (slot, n_bytes) in enumerate(zip(slots.tolist(), loaded["id_bytes"].tolist(), strict=True)):
            if n_bytes and not self.ids[slot]:
                start = k * loaded["id"].shape[1]
                self._name(slot, texts[start : start + n_bytes].decode())
        self.position[partition] = offset
        self.highest[partition] = highest
        self.clock_ms = max(self.clock_ms, clock_ms)

    def slots_in(self, partition: int) -> np.ndarray:
        """Slots of the items of one partition."""
        hashes = self.rows["hash"][: self.n_items]
        return np.flatnonzero((hashes % np.uint64(self.n_partitions)) == partition)

"""Names of everything in Redis. Rows of one partition share a hash tag, so that they share a slot on a cluster."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Keys:
    """Key names under one prefix and generation."""

    prefix: str
    generation: int = 1

    @property
    def live(self) -> str:
        """Number of the generation in use."""
        return f"{self.prefix}live"

    @property
    def meta(self) -> str:
        """What the generation was built from (JSON)."""
        return f"{self.prefix}g{self.generation}:meta"

    def partition(self, p: int) -> str:
        """Prefix of everything that belongs to partition p."""
        return f"{self.prefix}g{self.generation}:{{{p}}}:"

    def owner(self, p: int) -> str:
        """The fence: token of the one worker that may write p, and the number of its last write."""
        return self.partition(p) + "owner"

    def checkpoint(self, p: int) -> str:
        """Low-water mark of partition p of events (JSON)."""
        return self.partition(p) + "checkpoint"

    def shown(self, p: int) -> str:
        """Highest offset of p from which anything was published."""
        return self.partition(p) + "shown"

    def attempts(self, p: int) -> str:
        """How often workers started at the same checkpoint, and the event they were trying (JSON)."""
        return self.partition(p) + "attempts"

    def user(self, p: int, user_id: str) -> str:
        """A user's row."""
        return self.partition(p) + "u:" + user_id

    def items(self, p: int) -> str:
        """Hash of the item rows of partition p of interactions."""
        return self.partition(p) + "items"

    def items_checkpoint(self, p: int) -> str:
        """Up to where the item rows of p hold the log (JSON)."""
        return self.partition(p) + "items:checkpoint"

    def learned(self, name: str, piece: int) -> str:
        """A piece of what was learned from the lessons, under one of two names."""
        return f"{self.partition(0)}learned:{name}:{piece}"

    @property
    def learned_checkpoint(self) -> str:
        """Which of the two is whole, and up to where it holds the lessons (JSON)."""
        return self.partition(0) + "learned:checkpoint"

    def list_of(self, user_id: str) -> str:
        """A user's list, public."""
        return f"{self.prefix}rec:{user_id}"

    def embedding(self, user_id: str) -> str:
        """A user's vector under the release that is served, public."""
        return f"{self.prefix}emb:{user_id}"

    def similar(self, item_id: str) -> str:
        """An item's neighbours, public."""
        return f"{self.prefix}similar:{item_id}"

    @property
    def popular(self) -> str:
        """The list for users without one, public."""
        return f"{self.prefix}popular:all"

    @property
    def hidden(self) -> str:
        """Items that readers drop at once, public."""
        return f"{self.prefix}hidden:all"

    def worker(self, worker_id: str) -> str:
        """A worker's sign of life (JSON, expires)."""
        return f"{self.prefix}workers:{worker_id}"

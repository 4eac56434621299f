"""Names of everything in Redis. Rows of one partition share a hash tag, so that they share a slot on a cluster."""

from __future__ import annotations

from dataclasses import dataclass

#: Stands in the key `live` between the old name and the new while one generation follows another.
SWITCH = ">"


@dataclass(frozen=True, slots=True)
class Keys:
    """Key names under one prefix and generation. What is public of a generation that is not live lies under it too."""

    prefix: str
    generation: str = "1"
    is_live: bool = True

    @property
    def live(self) -> str:
        """Name of the generation in use; `old>new` while it is switched."""
        return f"{self.prefix}live"

    def agree(self, live: str) -> bool:
        """Whether the generation is still what it was taken for, live or a shadow, where the key `live` holds this."""
        return live == self.generation if self.is_live else self.generation not in live.split(SWITCH)

    @property
    def everything(self) -> str:
        """How all keys of the generation begin (of the live one: all but the public ones)."""
        return f"{self.prefix}g{self.generation}:"

    @property
    def public(self) -> str:
        """How keys that readers read begin."""
        return self.prefix if self.is_live else self.everything

    @property
    def lease(self) -> str:
        """Held by the one command that changes the generation."""
        return f"{self.everything}lease"

    @property
    def meta(self) -> str:
        """What the generation was built from (JSON)."""
        return f"{self.everything}meta"

    @property
    def rows(self) -> str:
        """The newest versions of rows that a worker may have written (JSON)."""
        return f"{self.everything}rows"

    def partition(self, p: int) -> str:
        """Prefix of everything that belongs to partition p."""
        return f"{self.everything}{{{p}}}:"

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

    def relist(self, p: int) -> str:
        """There since the generation went live, until all lists of p are its own."""
        return self.partition(p) + "relist"

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
        return f"{self.public}rec:{user_id}"

    def embedding(self, user_id: str) -> str:
        """A user's vector under the release that is served, public."""
        return f"{self.public}emb:{user_id}"

    def similar(self, item_id: str) -> str:
        """An item's neighbours, public."""
        return f"{self.public}similar:{item_id}"

    @property
    def popular(self) -> str:
        """The list for users without one, public."""
        return f"{self.public}popular:all"

    @property
    def hidden(self) -> str:
        """Items that readers drop at once, public."""
        return f"{self.public}hidden:all"

    def worker(self, worker_id: str) -> str:
        """A worker's sign of life (JSON, expires)."""
        return f"{self.public}workers:{worker_id}"


def literal(text: str) -> str:
    """A key as a pattern of SCAN that matches only itself."""
    return "".join("\\" + c if c in "*?[]\\^-" else c for c in text)

"""Which versions of rows lie in a generation: the first worker of a version notes it, in the key `rows`, before it writes any.

A worker that knows only older ones then stops before it takes a partition, and not at the first row that it cannot read: by then it
might have written its own over rows that say more, and its stops would be taken for those of an event that stops workers.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec


def ours() -> dict[str, int]:
    """What this version of streamrec writes, by kind."""
    from models import item_rows, user_row  # a compiler comes with them, which who only asks what is live does without

    return {"user": user_row.FORMAT.version, "item": item_rows.FORMAT.version}


class RowVersions(msgspec.Struct, frozen=True):
    """The newest of each kind that may lie there; 0: of before they were noted."""

    user: int = 0
    item: int = 0

    def beyond(self) -> Iterator[tuple[str, int, int]]:
        """Kinds of which something newer lies there than we write: kind, their version, ours."""
        for kind, version in ours().items():
            if (theirs := getattr(self, kind)) > version:
                yield kind, theirs, version


def read_versions(value: bytes | None) -> RowVersions:
    """What the key says; raises ValueError for what no worker has written."""
    return RowVersions() if value is None else msgspec.json.decode(value, type=RowVersions)


def merged(found: RowVersions) -> bytes:
    """What the key says once rows of ours lie there too."""
    return msgspec.json.encode(RowVersions(**{kind: max(getattr(found, kind), version) for kind, version in ours().items()}))

"""What a release says of itself: its `manifest.json`, read with suspicion, and the names of releases."""

from __future__ import annotations

import dataclasses
import json
import re
import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

FORMAT = 1
KIND = "transformer"
VERSION = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{6}")


class BadRelease(ValueError):
    """It is missing, damaged, of another shape than it says, or of a format that this version does not know."""


class Shape(NamedTuple):
    """Items, length of a vector, longest history that the graph takes, and event types (which is the type of padding; 0: none is
    looked at)."""

    n_items: int
    d: int
    max_len: int
    n_types: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a release is and where it comes from. `version`, `format` and `files` are filled in by `write`.

    config, seeds, data, metrics: what the trainer says of its training; free, but JSON. `data` holds first and last offsets
    by partition, first and last event time, n_events, n_users, n_items; `parent` is the version it was started from.
    """

    shape: Shape
    version: str = ""
    parent: str | None = None
    created_ms: int = 0
    code_version: str = ""
    kind: str = KIND
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seeds: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    metrics: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    files: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    format: int = FORMAT

    def to_json(self) -> bytes:
        """As it stands in the store."""
        return json.dumps({**dataclasses.asdict(self), "shape": self.shape._asdict()}, indent=1).encode()


def new_version(now_ms: int | None = None) -> str:
    """A name for a release: UTC time and 6 hex digits, so that names sort by age.

    >>> new_version(1_795_346_400_000)[:17]
    '20261122T112000Z-'
    """
    now = datetime.fromtimestamp(time.time() if now_ms is None else now_ms / 1000, UTC)
    return f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def made_ms(version: str) -> int | None:
    """When a release of this name was made; None for a name that no release has.

    >>> made_ms("20261122T112000Z-3fa2c1")
    1795346400000
    """
    try:
        made = datetime.strptime(version.partition("-")[0], "%Y%m%dT%H%M%SZ")
    except ValueError:
        return None
    return round(made.replace(tzinfo=UTC).timestamp() * 1000)


def parse(version: str, data: bytes) -> Manifest:
    """The manifest of this version from its bytes; raises BadRelease. Fields that a later version has added are passed over."""
    try:
        said = json.loads(data)
        if not isinstance(said, dict):
            raise ValueError("it is no JSON object")
        if isinstance(said.get("format"), int) and said["format"] > FORMAT:
            raise BadRelease(
                f"release {version} has format {said['format']}, this version of streamrec knows {FORMAT}:"
                " upgrade it, or promote an older release"
            )
        if said.get("format") != FORMAT or said.get("version") != version or said.get("kind") != KIND:
            raise ValueError(f"expected format {FORMAT}, kind {KIND!r} and its own version")
        shape = Shape(**{name: _whole(said["shape"][name]) for name in Shape._fields})
        for name in ("config", "seeds", "data", "metrics", "files"):
            if not isinstance(said.setdefault(name, {}), dict):
                raise ValueError(f"{name} is no object")
        files = {name: {"bytes": _whole(of["bytes"]), "sha256": str(of["sha256"])} for name, of in said["files"].items()}
        parent = None if said.get("parent") is None else str(said["parent"])
        return Manifest(
            shape=shape,
            version=version,
            parent=parent,
            created_ms=_whole(said.get("created_ms")),
            code_version=str(said.get("code_version", "")),
            config=said["config"],
            seeds=said["seeds"],
            data=said["data"],
            metrics=said["metrics"],
            files=files,
        )
    except BadRelease:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadRelease(f"the manifest of release {version} is damaged: {error!r}") from None


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is no whole number of 0 or more")
    return value

"""Releases under judgement: at each moment the newest of a store that has learned only from what came before.

So a store of many releases is judged as if each had been served from the moment at which its data ended, and none is asked about
what it has seen.
"""

from __future__ import annotations

from consumers.backtest.contender import ContenderError
from models.release import BadRelease, Release, read, read_manifest, versions


class Releases:
    """The releases of a store (a folder, or what fsspec reaches), by the ends of what they learned from. Raises ContenderError."""

    def __init__(self, store: str) -> None:
        self.store = store
        try:
            manifests = [read_manifest(store, version) for version in versions(store)]
        except (BadRelease, OSError) as error:
            raise ContenderError(f"the releases of {store} cannot be read: {error}") from error
        if not manifests:
            raise ContenderError(f"{store} holds no release; `streamrec train` makes them")
        silent = [m.version for m in manifests if not isinstance(m.data.get("last_time_ms"), int)]
        if silent:
            raise ContenderError(f"release {silent[0]} does not say up to when it learned (data.last_time_ms in its manifest), so nobody can "
                                 "tell whether it has seen what is to be foreseen")
        self._ends = sorted((m.data["last_time_ms"], m.version) for m in manifests)
        self._n_served = 0

    def due(self, now_ms: int) -> Release | None:
        """The release to serve from event time `now_ms` on; None: the one that is served goes on."""
        n = sum(end < now_ms for end, _ in self._ends)
        if n == self._n_served:
            return None
        self._n_served = n
        try:
            return read(self.store, self._ends[n - 1][1])
        except (BadRelease, OSError) as error:
            raise ContenderError(f"release {self._ends[n - 1][1]} of {self.store} cannot be judged: {error}") from error

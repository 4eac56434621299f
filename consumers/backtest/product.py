"""The product under judgement: the very refresh of the workers over a `System`, which is their absorb and fold.

In: what the system has absorbed. Out: the lists that would be published. Also each channel alone: a second refresh over the
same rows, with a blend that names nothing else (behind its own candidates stand items without a score); contenders that
share a system absorb a log once.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from consumers.backtest.contender import Ranking
from consumers.backtest.log import Log
from consumers.backtest.system import System
from infra.settings import Settings
from models.blend import Blend
from models.popularity import WINDOWS
from models.reranker import Reranker
from streams.refresh import Refresher

#: Every channel has its weight in the default blend.
CHANNELS = tuple(Settings().blend_weights())
#: As many as the judge looks at.
LIST_SIZE = 200
#: Popularity is renewed when event time has moved by this, as a worker renews it by the second.
RENEW_MS = 1_000
#: A channel that is alone and no popularity needs the popular items only to fill its lists, without a score.
FILL_MS = 86_400_000


class Product:
    """The running system as a contender. `settings`: a whole, or overrides of the defaults; `channel`: that one alone;
    `system`: that of another Product, to share what it absorbs; `store`: of releases to serve, see `System`."""

    def __init__(
        self,
        settings: Settings | Mapping[str, Any] | None = None,
        channel: str | None = None,
        *,
        name: str | None = None,
        system: System | None = None,
        store: str | None = None,
    ) -> None:
        whole = settings if isinstance(settings, Settings) else Settings(**(settings or {}))
        whole = dataclasses.replace(whole, list_size=max(whole.list_size, LIST_SIZE))
        self.system = system or System(whole, store)
        self.settings = self.system.settings if channel is None else dataclasses.replace(self.system.settings, blend=f"{channel}=1")
        self.name = name or channel or "product"
        self._channel = channel
        self._refresher: Refresher | None = None
        self._renewed_ms = 0
        self._renew_ms = RENEW_MS if channel is None or channel in WINDOWS else FILL_MS

    @property
    def about(self) -> dict[str, object]:
        """What it is made of: the settings that differ from the defaults."""
        shown = self.settings.public()
        return {f.name: shown[f.name] for f in dataclasses.fields(Settings) if shown[f.name] != f.default}

    def start(self, log: Log) -> None:
        """See `Contender`."""
        self.system.start(log)
        self._refresher = None

    def learn(self, log: Log, first: int, last: int) -> None:
        """See `Contender`."""
        self.system.learn(log, first, last)

    def observe(self, log: Log, first: int, last: int) -> None:
        """See `Observer`."""
        self.system.observe(log, first, last)

    def rank(self, users: np.ndarray, now_ms: int, n: int) -> Ranking:
        """See `Contender`. Users without a row get what readers find in their place: the popular list."""
        system = self.system
        system.move_to(now_ms)
        if self._refresher is None or system.now_ms - self._renewed_ms >= self._renew_ms:
            self._refresher = self._refresher or self._make_refresher()
            self._refresher.renew_popularity()
            self._renewed_ms = system.now_ms
        slots = system.slots_of(users)
        items, scores = np.full((len(users), n), -1, np.int32), np.zeros((len(users), n), np.float32)
        known = np.flatnonzero(slots >= 0)
        if len(known):
            ranked = self._refresher.rank(slots[known].tolist(), n)
            items[known], scores[known] = ranked.items, ranked.scores
        if len(known) < len(users):
            popular = self._refresher.rank_popular(n)
            width = popular.items.shape[1]
            items[slots < 0, :width], scores[slots < 0, :width] = popular.items, popular.scores
        return Ranking(system.numbers_of(items), scores)

    def _make_refresher(self) -> Refresher:
        refresher = self.system.engine.state.refresher
        return refresher if self._channel is None else _alone(refresher, self._channel)


def _alone(refresher: Refresher, channel: str) -> Refresher:
    """A refresher over the same rows and models in which only this channel has a say."""
    alone = copy.copy(refresher)
    # one is kept even where it is popularity that is alone: without weight it proposes in vain
    alone.channels = [c for c in refresher.channels if c.name == channel] or refresher.channels[:1]
    blend = Blend([c.name for c in alone.channels], {channel: 1.0})
    alone.fusion, alone._window_weights, alone._popular = cast(Reranker, blend), blend.window_weights, None
    return alone

"""What the screen shows, filled in by whoever knows it."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field

from consumers.demo.gauges import Flow, Sample, flow
from consumers.demo.quality import Hits

LISTS = ("streamrec", "popular:all", "counts")  # the user's list, what users without one get, counts kept by the demo
RATE_S = 3.0  # rates are of the last few seconds


@dataclass
class Board:
    """The state of the demo."""

    phase: str = ""
    detail: str = ""
    done: float = 0.0  # of the phase, 0 to 1
    n_sent: int = 0
    began_s: float = field(default_factory=time.monotonic)
    sample: Sample = field(default_factory=lambda: Sample(0.0))
    phase_from: Sample = field(default_factory=lambda: Sample(0.0))
    recent: deque[Sample] = field(default_factory=deque)
    hits: Hits = field(default_factory=lambda: Hits(LISTS))
    waited_ms: list[float] = field(default_factory=list)  # basket sent until the list that knows it was read
    model: str = ""  # what lists are made with, and for how long
    n_with_release: int = 0  # lists read that a release had a part in

    def enter(self, phase: str, detail: str = "") -> None:
        """A new phase; freshness is counted from here."""
        self.phase, self.detail, self.done = phase, detail, 0.0
        self.phase_from = self.sample

    def seen(self, sample: Sample) -> None:
        """A new look at the workers."""
        self.sample = sample
        self.recent.append(sample)
        while len(self.recent) > 2 and sample.at_s - self.recent[1].at_s >= RATE_S:
            self.recent.popleft()

    @property
    def rates(self) -> Flow:
        """Of the last seconds."""
        return flow(self.recent[0], self.sample) if len(self.recent) > 1 else Flow()

    @property
    def phase_flow(self) -> Flow:
        """Of this phase so far."""
        return flow(self.phase_from, self.sample)

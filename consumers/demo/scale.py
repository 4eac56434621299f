"""How much of the data the demo plays, and how fast; and the settings that suit groceries."""

from __future__ import annotations

import dataclasses
from typing import Any

from infra.settings import Settings

DAY_S = 86_400
SPEED_UP = 7_000  # the last week (5.7 days of it are in the data) takes 70 s

#: Where they differ from the defaults of streamrec. Chosen on weeks 1 to 30 of 53, so on nothing that the demo measures.
GROCERIES: dict[str, Any] = {
    "seen_types": "",  # people buy the same things again: nothing is hidden for having been bought
}


@dataclasses.dataclass(frozen=True)
class Scale:
    """weeks: of backlog, the last before the live one; households: how many (by number, lowest first); None: all.
    speed_up: of the live week against its own clock."""

    weeks: int | None = None
    households: int | None = None
    speed_up: float = SPEED_UP

    @property
    def name(self) -> str:
        """Names the files made for this scale."""
        return f"weeks-{self.weeks or 'all'}-households-{self.households or 'all'}"


def demo_settings(settings: Settings) -> Settings:
    """The given settings under a prefix of the demo's own, with GROCERIES where the user has set nothing else."""
    defaults = {field.name: field.default for field in dataclasses.fields(Settings)}
    chosen = {name: value for name, value in GROCERIES.items() if getattr(settings, name) == defaults[name]}
    # two workers on one machine cannot share a port
    return dataclasses.replace(settings, prefix=f"{settings.prefix}demo.", web_host="127.0.0.1", web_port=0, **chosen)

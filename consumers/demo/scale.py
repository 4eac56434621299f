"""How much of the data the demo plays, and how fast; and the settings that suit groceries."""

from __future__ import annotations

import dataclasses
from typing import Any

from infra.settings import Settings

DAY_S = 86_400
SPEED_UP = 7_000  # the last week (5.7 days of it are in the data) takes 70 s

#: What suits groceries. Chosen by the lockstep engine on baskets of weeks 20 to 30 of 53, so on nothing that the demo
#: measures (week 53); hit@10 there rose from 50.4% to 51.9% of 2,690 baskets.
GROCERIES: dict[str, Any] = {
    "seen_types": "",  # people buy the same things again: nothing is hidden for having been bought
    "repeat_half_life_s": 90 * DAY_S,  # habits last longer than a month (60 days: the same, 30: less)
    "mf_recency": 1.0,  # what was bought last says no more about the next basket than what is bought often
    # popularity speaks for households of whom little is known, co-visitation adds least to the first ten
    "blend": "repeat=1,covisitation=0.1,mf=0.02,popular_1h=0.02,popular_1d=0.1,popular_7d=1,popular=1",
}


#: The release that is trained beside it: as much as is learned in half of the live week by what the workers leave of two cores.
RELEASE: dict[str, Any] = {
    "train_window_days": 60,
    "train_exemplars": 0.0,
    "train_log_days": 60,  # days that are not learned need no files of their own
    "train_model": "d=32,epochs=3,learning_rate=0.005",
}
#: Its weight in the mixture that fusion begins with: little, as there is no time to find out what it is worth.
RELEASE_PRIOR = 0.1


@dataclasses.dataclass(frozen=True)
class Scale:
    """weeks: of backlog, the last before the live one; households: how many (by number, lowest first); None: all.
    speed_up: of the live week against its own clock; patience_s: how long its end waits for a release that is not ready."""

    weeks: int | None = None
    households: int | None = None
    speed_up: float = SPEED_UP
    patience_s: float = 15.0

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

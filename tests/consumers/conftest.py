"""No property test is judged by the clock: the first example compiles, and two cores are shared."""

from __future__ import annotations

import hypothesis

hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

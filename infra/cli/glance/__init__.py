"""The whole system at a glance: looked at (`look`), judged (`problems`), shown (`screen`); `status` and `top` are made of it."""

from __future__ import annotations

from infra.cli.glance.look import Glance
from infra.cli.glance.problems import problems_of

__all__ = ["Glance", "problems_of"]

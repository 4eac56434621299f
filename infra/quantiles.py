"""Quantiles of what was counted in ranges, as Prometheus' histograms count."""

from __future__ import annotations

from collections.abc import Sequence


def quantile_ms(buckets: Sequence[tuple[float, int]], q: float) -> float | None:
    """A quantile from cumulative buckets (bound in s, count), linear within a bucket; None where nothing was counted.

    >>> quantile_ms([(0.01, 50), (0.02, 100), (float("inf"), 100)], 0.75)
    15.0
    """
    n = buckets[-1][1] if buckets else 0
    if n <= 0:
        return None
    rank, low, below = q * n, 0.0, 0
    for bound, count in buckets:
        if count >= rank:
            if bound == float("inf"):
                return low * 1000
            return round((low + (bound - low) * (rank - below) / max(1, count - below)) * 1000, 6)
        low, below = bound, count
    return low * 1000


def share_within(buckets: Sequence[tuple[float, int]], bound_s: float) -> float | None:
    """The share of what was counted in cumulative buckets that lies at `bound_s`, one of the bounds, or below it.

    >>> share_within([(0.01, 50), (0.02, 75), (float("inf"), 100)], 0.02)
    0.75
    """
    n = buckets[-1][1] if buckets else 0
    return max([count for bound, count in buckets if bound <= bound_s], default=0) / n if n else None

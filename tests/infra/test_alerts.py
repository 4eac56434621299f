"""Every alert rule, fired by Prometheus' own evaluator on what workers said while it happened (tests/live/record_incidents.py).

Some things are not worth causing, so their recordings are made of the one in which all is well: a model that is old, lists that hit less
than what is popular, and more events than workers take (they took all that one machine could send). The machine that recorded had other things to do, so a third of the lists came late all the time: where lateness is not what
happened, it is taken out (`timely`). What fires is asked of the evaluator at the end, over the whole recording; nothing else may fire.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.infra.promql import ALERTS, rules, tool

RECORDED = json.loads((Path(__file__).parent / "incidents.json").read_text())
INTERVAL_S: int = RECORDED["interval_s"]
N_LOOKS = 48
WELL: dict[str, str] = RECORDED["incidents"]["well"]
#: The evaluator's clock begins at 0, so a model that was made before has a negative time.
THREE_DAYS_AGO_S = -3 * 86_400

EXPECTED: dict[str, set[str]] = {
    "well": set(),
    "flood": {"StreamrecFreshness"},
    "redis_gone": {"StreamrecWaiting", "StreamrecNoProgress", "StreamrecFreshness"},
    "rejected": {"StreamrecRejected"},
    "little_memory": {"StreamrecRedisMemory"},
    "stopped": {"StreamrecWorkerSilent"},
    "old model": {"StreamrecModelOld"},
    "worse than popularity": {"StreamrecHitRate"},
    "falling behind": {"StreamrecLag"},
    "catching up": set(),
}


def timely(series: dict[str, str]) -> dict[str, str]:
    """The same with all lists in time."""
    return {name: series[name.replace("_bucket", "_count").replace(',le="0.1"', "")] if "_bucket" in name else values for name, values in series.items()}


def old_model() -> dict[str, str]:
    """Well, but the model is three days old."""
    return {name: f"{THREE_DAYS_AGO_S}+0x{N_LOOKS - 1}" if "release_made" in name else values for name, values in WELL.items()}


def worse_than_popularity() -> dict[str, str]:
    """Well, but the hits of lists and of what is popular have changed places."""
    swap = {'of="list"': 'of="popular"', 'of="popular"': 'of="list"'}
    return {re.sub(r'of="(list|popular)"', lambda found: swap[found.group()], name): values for name, values in WELL.items()}


def lagging(first: int, step: int) -> dict[str, str]:
    """Well, but one partition is `first` events behind, and at each look `step` more."""
    (partition,) = [name for name in WELL if name.startswith("streamrec_lag{") and 'partition="0"' in name]
    return {**WELL, partition: f"{first}{step:+}x{N_LOOKS - 1}"}


MADE = {"old model": old_model, "worse than popularity": worse_than_popularity,
        "falling behind": lambda: lagging(0, 2_000), "catching up": lambda: lagging(300_000, -5_000)}


def fired(series: dict[str, str], expected: set[str], folder: Path) -> str:
    """Empty if exactly the expected alerts fire; else what the evaluator says."""
    # the last look of somebody who has stopped answering must not count for five minutes: Prometheus marks it as stale
    values = {name: re.sub(r"(?<=\d) _", " stale _", text) for name, text in series.items()}
    test = {
        "rule_files": [str(ALERTS)], "evaluation_interval": f"{INTERVAL_S}s",
        "tests": [{
            "interval": f"{INTERVAL_S}s",
            "input_series": [{"series": name, "values": text} for name, text in values.items()],
            "promql_expr_test": [{
                "expr": 'group by (alertname) (last_over_time(ALERTS{alertstate="firing"}[1d]))', "eval_time": f"{INTERVAL_S * N_LOOKS}s",
                "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(expected)]}],
        }],
    }
    file = folder / "test.yml"
    file.write_text(json.dumps(test))  # which is YAML, too
    done = subprocess.run([tool("promtool"), "test", "rules", str(file)], capture_output=True, text=True, timeout=120)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def series_of(incident: str) -> dict[str, str]:
    made: Any = MADE.get(incident)
    series = made() if made else dict(RECORDED["incidents"][incident])
    return series if "StreamrecFreshness" in EXPECTED[incident] else timely(series)


@pytest.mark.parametrize("incident", EXPECTED)
def test_an_incident_fires_its_alerts_and_no_others(incident: str, tmp_path: Path) -> None:
    assert not (said := fired(series_of(incident), EXPECTED[incident], tmp_path)), said


def test_every_alert_is_fired_by_an_incident() -> None:
    assert set().union(*EXPECTED.values()) == {rule["alert"] for rule in rules()}


def test_a_wrong_expectation_is_noticed(tmp_path: Path) -> None:
    assert "StreamrecLag" in fired(series_of("well"), {"StreamrecLag"}, tmp_path)

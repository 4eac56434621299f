"""Dashboards and alert rules ask only for metrics and labels that exist; provisioning leads to them. (Live: tests/live/test_observability.py)"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from consumers.trainer.metrics import TrainerMetrics
from infra.metrics import OBJECTIVE_S, OBJECTIVE_SHARE, Metrics
from tests.infra.promql import ALERTS, DASHBOARDS, ROOT, asked, expressions, panels, rules, tool

GRAFANA, PROMETHEUS = ROOT / "infra" / "grafana", ROOT / "infra" / "prometheus"
#: What Prometheus adds to every sample, and what it says itself.
ITS_LABELS, ITS_OWN = {"job", "instance"}, {"up"}
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


def exported() -> dict[str, set[str]]:
    """Labels by name of all samples that worker and trainer may export, also those of which none has come yet."""
    found: dict[str, set[str]] = {}
    for metrics in (Metrics(), TrainerMetrics()):
        parts: list[Any] = [part for part in vars(metrics).values() if hasattr(part, "_labelnames")]  # declared, and told nowhere else
        for part in parts:
            (family,) = part.collect()
            for suffix in SUFFIXES[family.type]:
                found[family.name + suffix] = {*part._labelnames, *(("le",) if suffix == "_bucket" else ())}
        for family in metrics.registry.collect():
            if family.name.startswith("process_"):
                found |= {sample.name: set(sample.labels) for sample in family.samples}
    return found


def test_all_that_is_asked_for_exists() -> None:
    there = exported()
    n = 0
    for where, expression in expressions():
        selectors, groups = asked(expression)
        assert selectors, where
        labels = set()
        for name, wanted in selectors:
            assert name in there or name in ITS_OWN, f"{where} asks for {name}, which nobody exports"
            mine = there.get(name, set()) | ITS_LABELS
            assert wanted.keys() <= mine, f"{where}: {name} has no labels {sorted(wanted.keys() - mine)}"
            labels |= mine
        assert groups <= labels, f"{where} sums by {sorted(groups - labels)}"
        n += len(selectors)
    assert n > 80


def test_a_wrong_name_or_label_would_be_noticed() -> None:
    (selector,), groups = asked('sum by (colour) (rate(streamrec_lags{partition="0"}[5m]))')
    assert selector == ("streamrec_lags", {"partition": "0"}) and groups == {"colour"}
    assert "streamrec_lags" not in exported() and "colour" not in exported()["streamrec_lag"]


def test_the_freshness_rule_is_the_objective() -> None:
    (rule,) = [rule for rule in rules() if rule["alert"] == "StreamrecFreshness"]
    assert f'le="{OBJECTIVE_S}"' in rule["expr"] and f"> {5 * (1 - OBJECTIVE_SHARE):.2f}" in rule["expr"]


def test_every_alert_has_its_paragraph_and_leads_there() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    for rule in rules():
        assert f"\n### {rule['alert']}\n" in page, rule["alert"]
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"
        assert rule["annotations"]["summary"] and rule["labels"]["severity"] in ("critical", "warning") and rule["for"]


def test_provisioning_leads_to_the_dashboards() -> None:
    (source,) = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text())["datasources"]
    (provider,) = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "streamrec.yml").read_text())["providers"]
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    mounts = dict(mount.split(":")[:2] for mount in services["grafana"]["volumes"])
    assert mounts["./infra/grafana/dashboards"] == provider["options"]["path"]
    assert mounts["./infra/grafana/provisioning"] == "/etc/grafana/provisioning"
    assert source["url"] == "http://prometheus:9090" and "prometheus" in services
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert Path(home).parent == Path(provider["options"]["path"]) and Path(home).name in [path.name for path in DASHBOARDS]
    scraped = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    (workers,) = scraped["scrape_configs"][0]["dns_sd_configs"]
    assert workers["names"] == ["worker"] and "worker" in services and workers["port"] == 8000  # as the Dockerfile says
    for service in services.values():  # without the profile all is as it was
        assert service.get("profiles", ["observability"]) == ["observability"]
    assert [name for name, service in services.items() if "profiles" in service] == ["prometheus", "grafana"]


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_is_whole(path: Path) -> None:
    board = json.loads(path.read_text())
    assert board["uid"] == path.stem and board["title"].startswith("streamrec")
    taken = set()
    for panel in panels(path):
        assert panel["datasource"]["uid"] == "prometheus" and panel["title"] and panel["targets"]
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert place["x"] + place["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in panels(path)}) == len(panels(path))


def test_prometheus_itself_takes_the_configuration() -> None:
    for what, file in (("config", PROMETHEUS / "prometheus.yml"), ("rules", ALERTS)):
        done = subprocess.run([tool("promtool"), "check", what, str(file)], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr

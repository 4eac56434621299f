"""A worker's own pages, read as an orchestrator and a Prometheus read them."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from typing import Any

from infra.stack import WorkerProcess

TIMEOUT_S = 5.0


def base_url(worker: WorkerProcess) -> str | None:
    """Where its pages are, by its log; None before it has said so."""
    found = re.search(r"metrics and health on (http://[\w.:-]+)", worker.log)
    return found.group(1) if found else None


def page(worker: WorkerProcess, path: str) -> tuple[int, str]:
    """(status, body); (0, "") where nobody answers."""
    url = base_url(worker)
    try:
        with urllib.request.urlopen(f"{url}{path}", timeout=TIMEOUT_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except (OSError, ValueError):
        return 0, ""


def health(worker: WorkerProcess, what: str = "live") -> dict[str, Any]:
    """The page /health/<what> with its status as `status`."""
    status, body = page(worker, f"/health/{what}")
    return {"status": status, **(json.loads(body) if body else {})}


def metric(worker: WorkerProcess, name: str, **labels: str) -> float:
    """One sample of /metrics, the sum over labels that are not named; 0 where there is none."""
    total = 0.0
    for line in page(worker, "/metrics")[1].splitlines():
        sample, _, value = line.rpartition(" ")
        found, _, rest = sample.partition("{")
        if found == name and all(f'{label}="{wanted}"' in rest for label, wanted in labels.items()):
            total += float(value)
    return total


def says_it_waits(worker: WorkerProcess, server: str) -> bool:
    """Whether health (still live) and metrics say that it waits for this server."""
    return (
        server in health(worker).get("waiting_for", ())
        and health(worker)["status"] == 200
        and metric(worker, "streamrec_waiting", server=server) == 1
    )

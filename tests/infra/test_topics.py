"""A worker that is started before its Kafka: it waits, and says so once, in a sentence that tells a newcomer what to do."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
STEP_S = 60.0


def test_a_worker_without_kafka_says_what_it_waits_for(tmp_path: Path, wait_until: Callable[..., Any]) -> None:
    with socket.socket() as closed:  # bound, but nobody listens: nothing else can answer there
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        said = tmp_path / "said"
        env = {name: value for name, value in os.environ.items() if not name.startswith("STREAMREC_")}
        env |= {"STREAMREC_HOME": str(tmp_path), "STREAMREC_KAFKA_BOOTSTRAP": address, "STREAMREC_REDIS_URL": "redis://127.0.0.1:1/0"}
        with said.open("w") as out:
            worker = subprocess.Popen([sys.executable, "-m", "infra.cli", "worker"], cwd=ROOT, env=env, stdout=out, stderr=out)
        try:
            wait_until(lambda: said.read_text(), STEP_S, "it says something")
            time.sleep(2.5)  # as long as two more attempts take: what comes once must not come again
            assert worker.poll() is None, "and it waits"
            (line,) = said.read_text().splitlines()
            assert f"waiting for Kafka at {address}" in line and "streamrec up" in line
        finally:
            worker.kill()
            worker.wait()

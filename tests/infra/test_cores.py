"""Matrix products take the core that asks for them, and no other."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

LOOK = """
import os
import infra.cli.entry, infra.cli.worker
from infra.cores import one_thread_each
one_thread_each()
import numpy as np
(np.ones((1000, 1000)) @ np.ones((1000, 1000))).sum()
print(len(os.listdir("/proc/self/task")))
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts threads as Linux tells them")
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core, one thread")
@pytest.mark.parametrize(("said", "threads"), [({}, 1), ({"OPENBLAS_NUM_THREADS": "2"}, 2)])
def test_a_worker_multiplies_in_one_thread_unless_it_is_told_otherwise(said: dict[str, str], threads: int) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    run = subprocess.run([sys.executable, "-c", LOOK], env=clean | said, capture_output=True, text=True, timeout=60, check=True)
    assert int(run.stdout) == threads

"""Two processes, as `torchrun` starts them, end with the weights of one."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'streamrec[train]'")

from models.transformer.training import fit  # noqa: E402
from models.transformer.weights import Weights  # noqa: E402
from tests.models.transformer.worlds import N_ITEMS, QUICK, SMALL, ragged  # noqa: E402

ROOT = Path(__file__).parents[3]
#: No drawing: negatives and dropout are drawn for each process by itself.
TRAIN = replace(QUICK, loss="full", epochs=2)
SCRIPT = """
import os, sys
from pathlib import Path
from models.transformer.training import fit
from tests.models.transformer.test_several_processes import N_ITEMS, SMALL, TRAIN, ragged
fit(ragged(), N_ITEMS, SMALL, TRAIN).save(Path(sys.argv[1]) / f"{os.environ['RANK']}.npz")
"""


def test_two_processes_end_as_one(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(tmp_path / "script.py"), str(tmp_path)],
        env=environment, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (Weights.load(tmp_path / f"{rank}.npz") for rank in (0, 1))
    alone = fit(ragged(), N_ITEMS, SMALL, TRAIN)
    for name, value in alone.arrays.items():
        assert (first.arrays[name] == second.arrays[name]).all()
        assert np.allclose(value, first.arrays[name], atol=2e-3), name

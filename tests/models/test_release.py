"""Releases: what is written is what is read; whatever is wrong with one is said, and none of it is served."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from models import release as releases
from models.release import BadRelease, Manifest, Release, Shape, dense, new_version, quantised, read, versions, write


def some_release(n: int = 7, d: int = 4, **more: object) -> Release:
    random = np.random.default_rng(n)
    manifest = Manifest(shape=Shape(n, d, 50, 9), metrics={"recall@20": 0.25}, data={"n_events": 3}, **more)  # type: ignore[arg-type]
    return Release(manifest, random.standard_normal((n, d), np.float32), np.arange(1, n + 1, dtype=np.uint64), b"graph")


def same(one: Release, other: Release) -> bool:
    return all(
        (a == b) if isinstance(a, bytes) else a is b or (a.dtype == b.dtype and np.array_equal(a, b))
        for a, b in zip(one[1:], other[1:], strict=True)
    )


@pytest.mark.parametrize("kind", ["float32", "float16", "int8"])
def test_what_is_written_is_read(tmp_path: Path, kind: str) -> None:
    release = some_release()
    if kind == "int8":
        rows, scales = quantised(release.vectors)
        release = release._replace(vectors=rows, scales=scales)
        assert np.abs(dense(release) - some_release().vectors).max() <= scales.max() / 2 + 1e-6
    else:
        release = release._replace(vectors=release.vectors.astype(kind))
    version = write(str(tmp_path), release)
    found = read(str(tmp_path), version)
    assert same(found, release)
    assert found.manifest.version == version and found.manifest.created_ms > 0
    assert found.manifest.shape == release.manifest.shape and found.manifest.metrics == {"recall@20": 0.25}
    assert dense(found).dtype == np.float32


def test_any_store_that_fsspec_reaches() -> None:
    store = f"memory://{time.time_ns()}/models"
    assert versions(store) == []
    version = write(store, some_release())
    assert versions(store) == [version]
    assert same(read(store, version), some_release())
    with pytest.raises(BadRelease, match="cannot be used"):
        versions("nosuch://there")


def test_versions_sort_by_age_and_folders_without_manifest_are_none(tmp_path: Path) -> None:
    store = str(tmp_path / "not [there] yet")
    assert versions(store) == []
    names = [new_version(1_795_346_400_000 + k * 1000) for k in (5, 1, 3)]
    for name in names:
        write(store, some_release(version=name))
    (Path(store) / new_version()).mkdir()
    (Path(store) / "notes").mkdir()
    assert versions(store) == sorted(names)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    version = write(str(tmp_path), some_release())
    with pytest.raises(BadRelease, match="already"):
        write(str(tmp_path), some_release(9, version=version))
    assert same(read(str(tmp_path), version), some_release())


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r._replace(keys=r.keys[:-1]),
        lambda r: r._replace(keys=r.keys * 0),
        lambda r: r._replace(keys=np.ones_like(r.keys)),
        lambda r: r._replace(keys=r.keys.astype(np.int64)),
        lambda r: r._replace(vectors=r.vectors[:, :-1]),
        lambda r: r._replace(vectors=r.vectors.astype(np.float64)),
        lambda r: r._replace(vectors=r.vectors * np.nan),
        lambda r: r._replace(vectors=r.vectors.astype(np.int8)),
        lambda r: r._replace(scales=np.ones(len(r.keys), np.float32)),
        lambda r: r._replace(graph=b""),
        lambda r: r._replace(manifest=dataclasses.replace(r.manifest, version="../../etc")),
    ],
)
def test_arrays_that_do_not_fit_are_not_written(tmp_path: Path, change: object) -> None:
    with pytest.raises(BadRelease):
        write(str(tmp_path), change(some_release()))  # type: ignore[operator]
    assert versions(str(tmp_path)) == [] and not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["graph.onnx", "vectors.npy", "keys.npy", "manifest.json"])
def test_missing_cut_longer_or_changed_files_are_refused(tmp_path: Path, name: str) -> None:
    version = write(str(tmp_path), some_release())
    path = tmp_path / version / name
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[: len(whole) // 2], b"", b"\xff" + whole[1:], whole[:-1] + bytes([whole[-1] ^ 1]), whole + b"x"):
        path.write_bytes(damaged)
        with pytest.raises(BadRelease, match=version):
            read(str(tmp_path), version)
    path.unlink()
    with pytest.raises(BadRelease, match=f"no {name}"):
        read(str(tmp_path), version)
    path.write_bytes(whole)
    assert same(read(str(tmp_path), version), some_release())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "upgrade"),
        ({"format": 0}, "damaged"),
        ({"kind": "oracle"}, "damaged"),
        ({"version": "20200101T000000Z-000000"}, "damaged"),
        ({"shape": {"n_items": 8, "d": 4, "max_len": 50, "n_types": 9}}, "shape"),
        ({"shape": {"n_items": 7, "d": 4, "max_len": -50, "n_types": 9}}, "damaged"),
        ({"shape": None}, "damaged"),
        ({"files": {}}, "names no"),
        ({"files": {"graph.onnx": 5}}, "damaged"),
        ({"created_ms": "today"}, "damaged"),
    ],
)
def test_what_the_manifest_may_not_say(tmp_path: Path, change: dict[str, object], said: str) -> None:
    version = write(str(tmp_path), some_release())
    path = tmp_path / version / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BadRelease, match=said):
        read(str(tmp_path), version)


def test_fields_of_a_later_version_are_passed_over(tmp_path: Path) -> None:
    version = write(str(tmp_path), some_release())
    path = tmp_path / version / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"weather": "fine"}))
    assert same(read(str(tmp_path), version), some_release())


def test_a_disk_that_takes_no_more_leaves_no_release(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))  # the system refuses to write on, as on a full disk
    try:
        with pytest.raises(OSError, match="too large"):
            write(str(tmp_path), some_release(1_000, 64))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert versions(str(tmp_path)) == [] and not list(tmp_path.iterdir())
    assert same(read(str(tmp_path), write(str(tmp_path), some_release())), some_release())


def test_a_writer_that_is_killed_leaves_releases_or_nothing(tmp_path: Path) -> None:
    loop = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from tests.models.test_release import some_release, write\n"
        "print('here', flush=True)\n"
        "while True: write(sys.argv[1], some_release(20_000, 64))"
    )
    root = str(Path(releases.__file__).parent.parent)
    for wait_s in (0.0, 0.02, 0.05):
        process = subprocess.Popen([sys.executable, "-c", loop, str(tmp_path), root], stdout=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.readline()
        deadline = time.monotonic() + 60
        while not any(tmp_path.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(wait_s)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        for version in versions(str(tmp_path)):
            read(str(tmp_path), version)
    left = list(tmp_path.glob(".*.partial"))
    for path in left:
        os.utime(path, (0, 0))
    version = write(str(tmp_path), some_release())
    assert same(read(str(tmp_path), version), some_release())
    assert not list(tmp_path.glob(".*.partial"))

"""A release: what one training leaves for workers to serve - the graph, the items' vectors, and a manifest that says what they are.

A release is the folder `<store>/<version>/`; a store is a local folder or any URL that fsspec reaches. `manifest.json` is
written last, and a folder without it is no release. Whoever reads one verifies all of it: sizes, checksums, shapes, numbers.
What is wrong is a `BadRelease` with a sentence; a store that does not answer is an `OSError`.

    graph.onnx     the network (models/recall.py says what goes in and out)
    vectors.npy    (n, d) float32, float16, or int8 with scales.npy (n,) float32: vector = scale x row
    keys.npy       (n,) uint64: `models.hashing.stable_hash` of the items' ids
    manifest.json  `Manifest`
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from models.durable import put_bytes, sync_folder
from models.manifest import VERSION, BadRelease, Manifest, Shape, new_version, parse

__all__ = ["BadRelease", "Manifest", "Release", "Shape", "dense", "location", "new_version", "quantised", "read", "read_manifest",
           "versions", "write"]

MANIFEST = "manifest.json"
#: A manifest may be so long, and the header of an array.
MOST_MANIFEST_BYTES = 4 * 1024 * 1024
MOST_HEADER_BYTES = 65_536
VECTOR_TYPES = ("float32", "float16", "int8")
CHUNK = 65_536
#: What a killed writer has left under a temporary name goes after this.
ABANDONED_S = 86_400


class Release(NamedTuple):
    """A release in memory: `vectors` (n, d), `keys` (n,) uint64, `graph` ONNX bytes, `scales` (n,) float32 with int8 vectors."""

    manifest: Manifest
    vectors: np.ndarray
    keys: np.ndarray
    graph: bytes
    scales: np.ndarray | None = None


def quantised(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vectors (n, d) as int8 and one scale a row (n,) float32: a quarter of the bytes.

    >>> rows, scales = quantised(np.array([[1.27, -0.5]], np.float32))
    >>> rows.tolist(), [f"{scale:.3f}" for scale in scales]
    ([[127, -50]], ['0.010'])
    """
    most = np.abs(vectors).max(axis=1)
    scales = np.where(most > 0, most / 127.0, 1.0).astype(np.float32)
    return np.rint(vectors / scales[:, None]).astype(np.int8), scales


def dense(release: Release) -> np.ndarray:
    """The vectors as (n, d) float32, whatever they are stored as."""
    vectors = release.vectors.astype(np.float32)
    if release.scales is not None:
        vectors *= release.scales[:, None]
    return vectors


def write(store: str, release: Release) -> str:
    """Put a release into a store and return its version; what the manifest leaves empty is filled in.

    Raises BadRelease where manifest and arrays do not belong together or the version is there already, and OSError where
    the store cannot be written (a full disk): then it holds no part of it under its name.
    """
    manifest = dataclasses.replace(release.manifest, version=release.manifest.version or new_version())
    if not VERSION.fullmatch(manifest.version):
        raise BadRelease(f"version is {manifest.version!r}, expected a name as `new_version` makes them")
    _check(manifest, release)
    arrays = {"vectors.npy": release.vectors, "keys.npy": release.keys}
    if release.scales is not None:
        arrays["scales.npy"] = release.scales
    contents = {"graph.onnx": release.graph, **{name: _npy(array) for name, array in arrays.items()}}
    files = {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in contents.items()}
    manifest = dataclasses.replace(manifest, files=files, created_ms=manifest.created_ms or time.time_ns() // 1_000_000)
    contents[MANIFEST] = manifest.to_json()  # last, and so last in the store
    with _opened(store) as (fs, root):
        folder = f"{root}/{manifest.version}"
        if fs.exists(f"{folder}/{MANIFEST}"):
            raise BadRelease(f"{store} holds a release {manifest.version} already; releases are never overwritten")
        if _is_local(fs):
            _write_local(Path(root), manifest.version, contents)
        else:  # an object is there whole or not at all, and without the manifest nobody looks at the others
            for name, data in contents.items():
                fs.pipe_file(f"{folder}/{name}", data)
    return manifest.version


def _write_local(root: Path, version: str, contents: Mapping[str, bytes]) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for left in root.glob(".*.partial"):
        if left.stat().st_mtime < time.time() - ABANDONED_S:
            shutil.rmtree(left, ignore_errors=True)
    partial = root / f".{version}.partial"
    try:
        partial.mkdir()
        for name, data in contents.items():
            put_bytes(partial / name, data)
        sync_folder(partial)
        os.rename(partial, root / version)
        sync_folder(root)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def versions(store: str) -> list[str]:
    """The releases of a store, oldest first; [] where there is no such folder. Raises OSError where it does not answer."""
    with _opened(store) as (fs, root):
        try:
            names = {path.rstrip("/").rsplit("/", 1)[-1] for path in fs.ls(root, detail=False)}
        except FileNotFoundError:
            return []
        return sorted(name for name in names if VERSION.fullmatch(name) and fs.exists(f"{root}/{name}/{MANIFEST}"))


def location(store: str) -> str:
    """A store's name that holds wherever it is read: a local folder as an absolute path."""
    with _opened(store) as (fs, root):
        return root if _is_local(fs) else store


def read_manifest(store: str, version: str) -> Manifest:
    """What a release says of itself; its other files are not looked at. Raises BadRelease, OSError."""
    if not VERSION.fullmatch(version):
        raise BadRelease(f"{version!r} is no version; expected a name like 20261122T112000Z-3fa2c1")
    return parse(version, _read_file(store, version, MANIFEST, MOST_MANIFEST_BYTES).tobytes())


def read(store: str, version: str) -> Release:
    """A release, every byte and number of it verified. Raises BadRelease, and OSError where the store does not answer."""
    manifest = read_manifest(store, version)
    wanted = ["graph.onnx", "vectors.npy", "keys.npy", *(["scales.npy"] if "scales.npy" in manifest.files else [])]
    contents = {}
    for name in wanted:
        if name not in manifest.files:
            raise BadRelease(f"{MANIFEST} of release {version} names no {name}")
        expected = manifest.files[name]
        data = _read_file(store, version, name, expected["bytes"])
        if len(data) != expected["bytes"] or hashlib.sha256(data.data).hexdigest() != expected["sha256"]:
            raise BadRelease(f"{name} of release {version} is damaged: {len(data):,} bytes of {expected['bytes']:,}, checksum wrong")
        contents[name] = data
    arrays = {name: _array(version, name, data) for name, data in contents.items() if name.endswith(".npy")}
    graph = contents["graph.onnx"].tobytes()
    release = Release(manifest, arrays["vectors.npy"], arrays["keys.npy"], graph, arrays.get("scales.npy"))
    _check(manifest, release)
    return release


def _check(manifest: Manifest, release: Release) -> None:
    """Raise BadRelease unless arrays have the shape that the manifest tells, and numbers that can be computed with."""
    shape, vectors, keys, scales = manifest.shape, release.vectors, release.keys, release.scales
    found = [(vectors.shape, (shape.n_items, shape.d), "vectors"), (keys.shape, (shape.n_items,), "keys")]
    if scales is not None:
        found.append((scales.shape, (shape.n_items,), "scales"))
    for actual, expected, name in found:
        if actual != expected:
            raise BadRelease(f"{name} have shape {actual}, the manifest says {expected}")
    if min(shape[:3]) < 1:
        raise BadRelease(f"{shape} holds nothing to serve")
    if vectors.dtype.name not in VECTOR_TYPES or keys.dtype != np.uint64:
        raise BadRelease(f"vectors are {vectors.dtype} and keys {keys.dtype}; expected one of {', '.join(VECTOR_TYPES)}, and uint64")
    if (vectors.dtype == np.int8) != (scales is not None) or (scales is not None and scales.dtype != np.float32):
        raise BadRelease("int8 vectors have float32 scales beside them, and no others do")
    chunks = range(0, shape.n_items, CHUNK)  # an answer for each number at once would be a quarter of a model
    if not all(np.isfinite(vectors[start : start + CHUNK]).all() for start in chunks) or (scales is not None and not np.isfinite(scales).all()):
        raise BadRelease("some vectors hold numbers that are not finite")
    if not keys.all() or not np.diff(np.sort(keys)).all():
        raise BadRelease("keys hold 0, or an item twice")
    if not release.graph:
        raise BadRelease("the graph is empty")


def _npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, np.ascontiguousarray(array), allow_pickle=False)
    return out.getvalue()


def _array(version: str, name: str, data: np.ndarray) -> np.ndarray:
    """The array in .npy bytes, which it shares and may change: a copy of a million vectors would be a third model in memory."""
    file = io.BytesIO(data[:MOST_HEADER_BYTES].tobytes())
    try:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError("not version 1.0 of the format")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        if fortran or dtype.hasobject:
            raise ValueError("not a plain array in rows")
        return np.frombuffer(data, dtype, offset=file.tell()).reshape(shape)
    except (ValueError, SyntaxError) as error:
        raise BadRelease(f"{name} of release {version} is no array that can be used: {error}") from None


@contextmanager
def _opened(store: str) -> Iterator[tuple[Any, str]]:
    """The file system of a store, and the store's path there. Whatever a store's own client raises becomes an OSError."""
    import fsspec  # 80 ms, for those who touch a store only

    try:
        fs, root = fsspec.core.url_to_fs(store)
    except (ImportError, ValueError) as error:  # a protocol nobody knows, or one whose package is not installed
        raise BadRelease(f"the store {store!r} cannot be used: {error}") from None
    try:
        yield fs, str(root).rstrip("/")
    except (OSError, BadRelease):
        raise
    except Exception as error:
        raise OSError(f"the store {store!r} does not answer: {error!r}") from error


def _is_local(fs: Any) -> bool:
    return "file" in ((fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol)


def _read_file(store: str, version: str, name: str, most_bytes: int) -> np.ndarray:
    with _opened(store) as (fs, root):
        path = f"{root}/{version}/{name}"
        try:
            if (size := fs.size(path)) > most_bytes:  # asked first: a damaged manifest may tell any number
                raise BadRelease(f"{name} of release {version} is damaged: {size:,} bytes, expected {most_bytes:,} at most")
            data, n = np.empty(size, np.uint8), 0  # a bytearray is filled with zeros first, and nobody else runs meanwhile
            with fs.open(path, "rb") as file:
                while n < size and (got := file.readinto(data[n:])):
                    n += got
        except (FileNotFoundError, NotADirectoryError):
            raise BadRelease(f"{store} has no {name} of release {version}") from None
    return data[:n]

"""`streamrec models`: the releases of the trained model - which there are, which is served, and to serve another.

The list's object has: store, announced {version, store, announced_ms} or null, workers {id: version or null}, refused {id: {version, why}},
releases [{version, created_ms, bytes, n_items, d, vectors, metrics, error}].
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from typing import Any

from infra.settings import Settings, StreamrecError

REDIS_TIMEOUT_S = 5.0
NONE = "none"
N_METRICS = 3


class ModelsError(StreamrecError):
    """There is no such release, or it cannot be served."""


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Carries out one action."""
    from models.release import BadRelease

    store = args.store or settings.store()
    try:
        if args.action == "list":
            return _list(args, settings, store)
        if args.action == "show":
            return _show(_chosen(args, store), store)
        version = _before(settings, store) if args.action == "rollback" and not args.version else _chosen(args, store)
        return _promote(settings, store, version)
    except BadRelease as error:
        raise ModelsError(str(error)) from error
    except OSError as error:
        raise ModelsError(f"the store of releases at {store} does not answer as expected: {error}") from error


def _chosen(args: argparse.Namespace, store: str) -> str | None:
    """The version that the command names: whole, or how it begins or ends; None: no release."""
    from models.release import versions

    if not args.version:
        raise ModelsError(f"`streamrec models {args.action}` needs a version; `streamrec models list` shows which there are")
    if args.version == NONE and args.action != "show":
        return None
    there = versions(store)
    found = [version for version in there if version == args.version or version.startswith(args.version) or version.endswith(args.version)]
    if len(found) != 1:
        what = f"{len(found)} releases like" if found else "no release"
        raise ModelsError(f"{store} holds {what} {args.version!r}; there {'are ' + ', '.join(there[-5:]) if there else 'is none at all'}")
    return found[0]


def _before(settings: Settings, store: str) -> str:
    """The release before the one that is served."""
    from models.release import versions

    current = _announced(settings)
    if current is None:
        raise ModelsError("no release is served, so there is none to go back from; `streamrec models promote VERSION` serves one")
    older = [version for version in versions(current["store"]) if version < current["version"]]
    if not older or current["store"] != _location(store):
        raise ModelsError(f"{store} holds no release before {current['version']}; `streamrec models promote {NONE}` serves none")
    return older[-1]


def _promote(settings: Settings, store: str, version: str | None) -> int:
    from infra.topics import ensure_topics
    from models.graph import Graph
    from models.release import read
    from streams.announcements import announce

    if version is not None:
        release = read(store, version)
        Graph(release.graph, release.manifest.shape)
    asyncio.run(ensure_topics(settings))
    asyncio.run(announce(settings, store, version))
    print("announced: no release is served" if version is None else f"announced: release {version} of {store}, verified")
    return 0


def _show(version: str | None, store: str) -> int:
    from models.release import read_manifest

    assert version is not None
    print(read_manifest(store, version).to_json().decode())
    return 0


def _list(args: argparse.Namespace, settings: Settings, store: str) -> int:
    report = gather(settings, store)
    if args.json:
        print(json.dumps(report))
    else:
        show(report)
    return 0


def gather(settings: Settings, store: str) -> dict[str, Any]:
    """What `--json` prints."""
    from models.release import BadRelease, read_manifest, versions

    releases = []
    for version in versions(store):
        try:
            manifest = read_manifest(store, version)
            n_bytes = sum(file["bytes"] for file in manifest.files.values())
            about = {"n_items": manifest.shape.n_items, "d": manifest.shape.d, "metrics": manifest.metrics, "error": None}
            releases.append({"version": version, "created_ms": manifest.created_ms, "bytes": n_bytes, **about})
        except BadRelease as error:
            releases.append({"version": version, "error": str(error)})
    signs = _signs(settings)
    return {
        "store": store,
        "announced": _announced(settings),
        "workers": {sign["id"]: sign.get("release") for sign in signs},
        "refused": {sign["id"]: sign["release_refused"] for sign in signs if sign.get("release_refused")},
        "releases": releases,
    }


def _announced(settings: Settings) -> dict[str, Any] | None:
    import msgspec

    from streams.announcements import announced
    from streams.shared_logs import LogMissing

    try:
        return msgspec.to_builtins(found) if (found := asyncio.run(announced(settings))) is not None else None
    except LogMissing:  # no worker has ever been started, so there is no topic
        return None


def _location(store: str) -> str:
    from models.release import location

    return location(store)


def _signs(settings: Settings) -> list[dict[str, Any]]:
    """Workers' signs of life."""
    import redis

    args = {"socket_timeout": REDIS_TIMEOUT_S, "socket_connect_timeout": REDIS_TIMEOUT_S, **settings.redis_client_args()}
    with redis.from_url(settings.redis_url, **args) as client:
        keys = sorted(client.scan_iter(match=settings.key("workers:").encode() + b"*", count=5_000))
        return [json.loads(text) for text in (client.mget(keys) if keys else []) if text]


def show(report: dict[str, Any]) -> None:
    """Prints the list as a table."""
    from rich.table import Table

    from infra.cli.console import stdout_console

    console = stdout_console()
    current = (report["announced"] or {}).get("version")
    serving = list(report["workers"].values())
    console.print(f"{report['store']}: {len(report['releases']) or 'no'} release{'' if len(report['releases']) == 1 else 's'}", markup=False)
    if report["releases"]:
        table = Table(box=None, padding=(0, 2, 0, 0))
        for name in ("release", "age", "size", "items", "workers", "metrics"):
            table.add_column(name, no_wrap=name != "metrics")
        for release in report["releases"]:
            version = release["version"]
            notes = ["announced"] if version == current else []
            if n := serving.count(version):
                notes.append(f"{n} of {len(serving)}")
            if release["error"]:
                table.add_row(version, "", "", "", ", ".join(notes), release["error"])
                continue
            size = f"{release['bytes'] / 2**20:.1f} MiB"
            table.add_row(version, _age(release["created_ms"]), size, f"{release['n_items']:,}", ", ".join(notes), _figures(release["metrics"]))
        console.print(table)
    elsewhere = current is not None and current not in [release["version"] for release in report["releases"]]
    if elsewhere:
        console.print(f"announced: {current} of {report['announced']['store']}", markup=False)
    if serving and serving.count(None):
        console.print(f"{serving.count(None)} of {len(serving)} workers serve no release")
    for worker, refused in report["refused"].items():
        console.print(f"{worker} has refused {refused['version'] or 'an announcement'}: {refused['why']}", markup=False)


def _age(created_ms: int) -> str:
    minutes = max(0.0, time.time() * 1000 - created_ms) / 60_000
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.0f} h" if minutes < 2880 else f"{minutes / 1440:.0f} d"


def _figures(metrics: dict[str, Any]) -> str:
    """The first numbers of the candidate's metrics, or of whatever there is."""
    own = metrics.get("candidate", metrics)
    numbers = [(name, value) for name, value in (own.items() if isinstance(own, dict) else []) if isinstance(value, (int, float))]
    return " ".join(f"{name}={value:.4g}" for name, value in numbers[:N_METRICS])

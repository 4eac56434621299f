"""`streamrec bench`: runs a script of benchmarks/ by name, in a process of its own so that no claim warms up another."""

from __future__ import annotations

import argparse
import ast
import os
import subprocess
import sys
from pathlib import Path

from infra.settings import Settings, StreamrecError

FOLDER = Path(__file__).parent.parent.parent / "benchmarks"


class UsageError(StreamrecError):
    """The command line asks for something that is not there."""


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Runs one or all; returns the worst exit code."""
    del settings  # each script takes its own stack, so that no figure depends on what else is in one
    scripts = {path.stem: path for path in sorted(FOLDER.glob("*.py")) if not path.stem.startswith("_")}
    if not scripts:
        raise UsageError(f"there are no benchmarks in {FOLDER}; they come with the source, not with the installed package")
    if args.name is None:
        width = max(map(len, scripts))
        print("\n".join(f"{name:{width}}  {_claim(path)}" for name, path in scripts.items()))
        return 0
    if args.name != "all" and args.name not in scripts:
        raise UsageError(f"there is no benchmark {args.name!r}; there are {', '.join(scripts)}, and all")
    rest = (["--json"] if args.json else []) + args.rest
    path = os.pathsep.join(filter(None, [str(FOLDER.parent), os.environ.get("PYTHONPATH", "")]))
    worst = 0
    for name in scripts if args.name == "all" else [args.name]:
        if args.name == "all":
            print(f"== {name}", file=sys.stderr)
        done = subprocess.run([sys.executable, str(scripts[name]), *rest], env={**os.environ, "PYTHONPATH": path})
        worst = max(worst, abs(done.returncode))
    return min(worst, 255)


def _claim(path: Path) -> str:
    """First line of the script's docstring, read without running it."""
    return (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]

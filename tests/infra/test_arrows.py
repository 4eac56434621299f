"""Which package may import which: the arrows of docs/design.md, read from the source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
OURS = ("models", "streams", "consumers", "infra")
APP = ("streams.worker", "streams.app")  # the running worker: nobody builds on it
MAY = {
    "models": ("models",),
    "streams": ("streams", "models", "infra.settings", "infra.metrics"),
    "consumers": ("consumers", "streams", "models", "infra"),
    "infra": ("infra",),
    "infra.cli": OURS,
}


def role(module: str) -> str:
    """The package whose rule a module follows."""
    return "infra.cli" if within(module, "infra.cli") else module.split(".")[0]


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def imports(path: Path, module: str) -> list[tuple[int, str]]:
    """Every import of ours in the file, at the top or within a function, as (line, full name)."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
            base = ".".join(package[:len(package) - node.level + 1]) if node.level else ""
            source = ".".join(filter(None, [base, node.module]))
            # `from infra import settings` names a module, `from infra.settings import Settings` does not: ask the tree
            found += [(node.lineno, full if is_module(full := f"{source}.{alias.name}") else source) for alias in node.names]
    return [(line, name) for line, name in found if name.split(".")[0] in OURS]


def is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").exists() or path.is_dir()


def violations(module: str, path: Path) -> list[str]:
    allowed = MAY[role(module)]
    wrong = []
    for line, name in imports(path, module):
        forbidden = not any(within(name, package) for package in allowed)
        forbidden |= role(module) == "consumers" and any(within(name, part) for part in (*APP, "infra.cli"))
        forbidden |= role(module) == "infra" and within(name, "infra.cli")
        if forbidden:
            wrong.append(f"{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}:{line} imports {name}; "
                         f"{role(module)} may import {', '.join(allowed)}")
    return wrong


def test_imports_follow_the_arrows() -> None:
    wrong = []
    for package in OURS:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            wrong += violations(name, path)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(("module", "source", "caught"), [
    ("models.x", "import streams.users", True),
    ("models.x", "def f():\n    from infra.settings import Settings", True),
    ("streams.x", "from infra.settings import Settings", False),
    ("streams.x", "from infra import settings", False),
    ("streams.x", "from infra.topics import ensure_topics", True),
    ("streams.x", "from . import users", False),
    ("consumers.x", "from streams import app", True),
    ("consumers.x", "from streams.worker import run", True),
    ("consumers.x", "from infra.stack import LocalStack", False),
    ("infra.x", "from consumers.reader import Reader", True),
    ("infra.cli.x", "from consumers.reader import Reader", False),
    ("models.x", "import numpy", False),
])
def test_the_check_itself_sees_wrong_arrows(module: str, source: str, caught: bool, tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text(source)
    assert bool(violations(module, path)) is caught

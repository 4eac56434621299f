"""The documents, held to the code: links lead somewhere, what is named exists, and what exists is named."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
from pathlib import Path

import pytest

from consumers.trainer.metrics import TrainerMetrics
from infra.cli.options import VERBS
from infra.metrics import Metrics
from infra.settings import HOME_VARIABLE, Settings

ROOT = Path(__file__).parent.parent.parent
DOCS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
PACKAGES = ("models", "streams", "consumers", "infra")
MAX_LINES = 300
#: Paths of somebody's machine, and addresses of package hosts: the reader has neither.
FORBIDDEN = re.compile(r"(?<![\w.])/(?:work|tmp|home|root|Users)/|file://|pypi\.org|pythonhosted|--(?:extra-)?index-url|\bTODO\b|\bFIXME\b",
                       re.IGNORECASE)
ours = pytest.mark.parametrize("path", DOCS, ids=lambda path: str(path.relative_to(ROOT)))


def prose(path: Path) -> str:
    """The text without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(path: Path) -> set[str]:
    """Anchors of a page's headings, made as the usual renderers do."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@ours
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", prose(path)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        page = (path.parent / name) if name else path
        assert page.exists(), f"{path.name} links to {target}"
        if anchor:
            assert anchor in anchors(page), f"{path.name} links to {target}; {page.name} has {sorted(anchors(page))}"


@ours
def test_every_page_is_readable(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= MAX_LINES
    assert text.startswith("# ") and text.endswith("\n") and "\t" not in text
    assert text.count("```") % 2 == 0
    assert not (found := FORBIDDEN.search(text)), f"{path.name} has {found.group()!r}" if found else ""


@ours
def test_json_parses(path: Path) -> None:
    for block in re.findall(r"^```json\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL):
        json.loads(block)


@ours
def test_python_parses_and_files_named_exist(path: Path) -> None:
    text = path.read_text()
    for block in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        ast.parse(block)
    for name in re.findall(rf"`((?:{'|'.join(PACKAGES)}|docs|tests|benchmarks)/[\w./-]+)`", text):
        assert (ROOT / name).exists(), f"{path.name} names {name}"


@ours
def test_settings_named_exist(path: Path) -> None:
    known = {f"STREAMREC_{field.name.upper()}" for field in dataclasses.fields(Settings)} | {HOME_VARIABLE}
    named = set(re.findall(r"STREAMREC_[A-Z][A-Z_]*[A-Z]", path.read_text()))
    assert named <= known, f"{path.name} names {sorted(named - known)}"


@ours
def test_verbs_named_exist(path: Path) -> None:
    named = set(re.findall(r"(?:^|`)streamrec ([a-z]+)", path.read_text(), re.MULTILINE))
    assert named <= {verb.name for verb in VERBS}, f"{path.name} names {sorted(named - {verb.name for verb in VERBS})}"


def test_every_setting_is_documented_as_it_is() -> None:
    page = (ROOT / "docs" / "settings.md").read_text().splitlines()
    for field in dataclasses.fields(Settings):
        default = f"`{field.default}`" if field.default != "" else "empty"
        unit = f" {field.metadata['unit']} " if field.metadata["unit"] else " "
        line = f"| `STREAMREC_{field.name.upper()}` | {default} |{unit}| {field.metadata['doc']} |"
        assert line in page, f"docs/settings.md lacks the line\n{line}"
    assert sum(line.startswith("| `STREAMREC_") for line in page) == len(dataclasses.fields(Settings))


def test_every_metric_is_documented_and_none_else() -> None:
    exist = set()
    for page, metrics in (("metrics.md", Metrics()), ("trainer.md", TrainerMetrics())):
        here = {family.name + ("_total" if family.type == "counter" else "") for family in metrics.registry.collect()
                if family.name.startswith("streamrec_")}
        assert set(re.findall(r"^\| `(streamrec_\w+)` \|", (ROOT / "docs" / page).read_text(), re.MULTILINE)) == here
        exist |= here
    for path in DOCS:
        named = set(re.findall(r"\bstreamrec_[a-z_]+", path.read_text()))
        assert named <= exist, f"{path.name} names {sorted(named - exist)}"


def test_log_lines_quoted_to_operators_are_said_by_the_code() -> None:
    """Under **Seen**, a code span of three words or more is a piece of a log line or of an error."""
    said = []
    for package in PACKAGES:
        for source in (ROOT / package).rglob("*.py"):
            said += [node.value for node in ast.walk(ast.parse(source.read_text()))
                     if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    seen = re.findall(r"^- \*\*Seen\*\*: (.*?)(?=^- \*\*Do|^\S)", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE | re.DOTALL)
    quoted = [span for part in seen for span in re.findall(r"`([^`]+)`", " ".join(part.split())) if span.count(" ") >= 2]
    quoted = [span for span in quoted if not span.startswith(("redis-cli", "kcat", "streamrec "))]
    assert len(quoted) > 20
    for span in quoted:
        assert any(span in text for text in said), f"docs/operations.md quotes {span!r}, which nothing says"

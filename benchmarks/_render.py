"""docs/benchmarks.md from figures: `streamrec bench all --json > figures.jsonl`, then `python -m benchmarks._render figures.jsonl`.

Writes between the two marks of that page and leaves the rest as it is: one table of all claims, then what was measured beside
each. What is not measured anew stays as the page has it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks._claims import Claim, scripts

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
BEGIN, END = "<!-- figures: written by `python -m benchmarks._render` -->", "<!-- end of figures -->"
HEAD = ["| claim | what | reach | measured | beside it, same run | command |", "|---|---|---|---|---|---|"]
NOT_YET = "not measured yet"


def claims() -> list[tuple[str, Claim]]:
    """Every claim with the name of its script."""
    return [(name, claim) for name in scripts() for claim in importlib.import_module(f"benchmarks.{name}").CLAIMS]


def render(figures: dict[str, dict[str, Any]], before: str = "") -> str:
    """What stands between the marks; `figures` by claim; before: what stood there, of which claims without a figure keep theirs."""
    rows = {line.split("`")[1]: line for line in before.splitlines() if line.startswith("| `")}
    sections = {text.partition("\n")[0]: text.strip() for text in before.split("\n### ")[1:]}
    abouts = [line for line in before.splitlines() if line.startswith("Machine: ")]
    lines = list(HEAD)
    for script, claim in claims():
        figure, head = figures.get(claim.name), f"| `{claim.name}` | {claim.what} | {_reach(claim)} |"
        old = rows.get(claim.name, "")
        said = f"{head} {_measured(figure)} | {_first(figure)} | `streamrec bench {script}` |"
        lines.append(old if figure is None and old.startswith(head) else said)
    abouts += [f"Machine: {figure['machine'].partition(', load')[0]}. Versions: {figure['versions']}." for figure in figures.values()]
    for about in dict.fromkeys(abouts):
        lines += ["", about]
    for _, claim in claims():
        if figure := figures.get(claim.name):
            lines += ["", f"### {claim.name}", "", f"`{figure['command']}` ({_load(figure)})", ""]
            lines += [f"- {name.replace('_', ' ')}: {_shown(value)}" for name, value in figure["beside"].items()]
        elif claim.name in sections:
            lines += ["", f"### {sections[claim.name]}"]
    return "\n".join(lines)


def between(page: Path = PAGE) -> str:
    """What stands between the marks now."""
    return page.read_text().partition(BEGIN)[2].partition(END)[0].strip("\n")


def write(text: str, page: Path = PAGE) -> None:
    """Replace what stands between the marks."""
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


def read(lines: list[str]) -> dict[str, dict[str, Any]]:
    """Figures by claim; of several of one claim the last."""
    found = [json.loads(line) for line in lines if line.startswith("{")]
    return {figure["claim"]: figure for figure in found}


def _reach(claim: Claim) -> str:
    return f"{claim.reach} {claim.unit}"


def _measured(figure: dict[str, Any] | None) -> str:
    if figure is None:
        return NOT_YET
    value = "never" if figure["value"] is None else f"{_shown(figure['value'])} {figure['unit']}"
    return f"**{value}**" if figure["met"] else f"{value} (missed)"


def _first(figure: dict[str, Any] | None) -> str:
    """What fits into a cell: the plain numbers, the rest stands below."""
    if figure is None:
        return ""
    plain = [f"{name.replace('_', ' ')} {_shown(value)}" for name, value in figure["beside"].items()
             if isinstance(value, (int, float))]
    return "; ".join(plain[:4])


def _load(figure: dict[str, Any]) -> str:
    return "load" + str(figure["machine"]).partition(", load")[2]


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')} {_shown(one)}" for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{value:,}"
    return "never" if value is None else str(value)


def main(argv: list[str] | None = None) -> int:
    """argv: files of figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks._render", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", nargs="*", type=Path, help="what `streamrec bench ... --json` printed")
    args = parser.parse_args(argv)
    write(render(read([line for path in args.figures for line in path.read_text().splitlines()]), between()))
    return 0


if __name__ == "__main__":
    sys.exit(main())

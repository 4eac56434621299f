"""docs/benchmarks.md from figures: `streamrec bench all --json > figures.jsonl`, then `python -m benchmarks._render figures.jsonl`.

Writes between the two marks of that page and leaves the rest as it is: one table of all claims, then what was measured beside
each. Without figures it renders the claims alone.
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


def render(figures: dict[str, dict[str, Any]]) -> str:
    """What stands between the marks; `figures` by claim."""
    lines = list(HEAD)
    for script, claim in claims():
        figure = figures.get(claim.name)
        lines.append(f"| `{claim.name}` | {claim.what} | {_reach(claim)} | {_measured(figure)} | {_first(figure)} "
                     f"| `streamrec bench {script}` |")
    for about in dict.fromkeys((figure["machine"].partition(", load")[0], figure["versions"]) for figure in figures.values()):
        lines += ["", f"Machine: {about[0]}. Versions: {about[1]}."]
    for _, claim in claims():
        if figure := figures.get(claim.name):
            lines += ["", f"### {claim.name}", "", f"`{figure['command']}` ({_load(figure)})", ""]
            lines += [f"- {name.replace('_', ' ')}: {_shown(value)}" for name, value in figure["beside"].items()]
    return "\n".join(lines)


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
    """argv: files of figures, none: the claims alone."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks._render", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", nargs="*", type=Path, help="what `streamrec bench ... --json` printed")
    args = parser.parse_args(argv)
    write(render(read([line for path in args.figures for line in path.read_text().splitlines()])))
    return 0


if __name__ == "__main__":
    sys.exit(main())

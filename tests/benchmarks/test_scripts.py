"""The benchmarks without running them: each has a claim with a reach, options in two sizes, and a report in both forms."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from benchmarks import _claims, _render
from benchmarks._claims import Claim, Figure, Options, as_json, as_text, quantile
from benchmarks._events import Population
from benchmarks._live import histogram_quantile
from benchmarks._wire import offset_in
from streams.events import check, decode_event
from streams.lists import ListWriter
from streams.partitioner import partition_of

NAMES = ("backlog", "ceiling", "drain", "erasures", "event_log", "failover", "freshness", "lists", "lookup", "memory", "reader", "recall",
         "releases", "replay", "restart", "retrieval")
ABOUT = {"machine": "m", "versions": "v", "seed": 7, "command": "c"}


@pytest.fixture(params=NAMES)
def script(request: pytest.FixtureRequest) -> ModuleType:
    return importlib.import_module(f"benchmarks.{request.param}")


def test_every_claim_has_its_script() -> None:
    assert tuple(_claims.scripts()) == NAMES


def test_a_script_says_what_it_claims(script: ModuleType) -> None:
    name = script.__name__.rpartition(".")[2]
    assert script.CLAIMS[0].name == name and f"`{name}`" in (script.__doc__ or "").partition("\n")[0]
    for claim in script.CLAIMS:
        assert (claim.at_least is None) != (claim.at_most is None) and claim.unit and claim.what
        assert claim.met(claim.at_least or claim.at_most or 0.0)


def test_a_script_has_a_full_and_a_small_size(script: ModuleType) -> None:
    parser = Options("x", "")
    script.options(parser)
    full, small = vars(parser.parse_args([])), vars(parser.parse_args(["--small"]))
    sizes = [name for name in full if full[name] != small[name] and name != "small"]
    assert sizes and all(full[name] > small[name] for name in sizes)
    given = vars(parser.parse_args(["--small", f"--{sizes[0].replace('_', '-')}", "3"]))
    assert given[sizes[0]] == 3


def test_a_report_in_both_forms() -> None:
    claim = Claim(name="x", what="how soon", unit="ms", at_most=50)
    figure = Figure(claim, float("inf"), {"beside_rate": 12.3456, "runs": [1.0, float("nan")]})
    found = json.loads(json.dumps(as_json(figure, ABOUT), allow_nan=False))
    assert (found["claim"], found["value"], found["met"], found["reach"]) == ("x", None, False, "<= 50")
    assert found["beside"] == {"beside_rate": 12.35, "runs": [1.0, None]}
    assert "MISSED" in as_text([figure], ABOUT)
    assert as_json(Figure(claim, 49.987), ABOUT)["met"] is True


def test_the_page_has_every_claim(tmp_path: Path) -> None:
    figures = {claim.name: as_json(Figure(claim, 1.0, {"beside": 2.0}), ABOUT) for _, claim in _render.claims()}
    page = tmp_path / "page.md"
    page.write_text(f"before\n{_render.BEGIN}\nOLD FIGURES\n{_render.END}\nafter\n")
    _render.write(_render.render(figures), page)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "OLD FIGURES" not in text
    assert all(f"| `{name}` |" in text and f"### {name}\n" in text for name in figures)
    anew = next(iter(figures))
    _render.write(_render.render({anew: figures[anew] | {"value": 7.0}}, _render.between(page)), page)
    changed = [(one, other) for one, other in zip(text.splitlines(), page.read_text().splitlines(), strict=True) if one != other]
    assert len(changed) == 1 and f"| `{anew}` |" in changed[0][1] and "7.0" in changed[0][1], "what is not measured anew stays"
    assert all(f"| `{claim.name}` | {claim.what} | {claim.reach} {claim.unit} |" in _render.PAGE.read_text()
               for _, claim in _render.claims()), "docs/benchmarks.md is behind; run `python -m benchmarks._render`"


def test_events_are_what_a_worker_accepts_where_it_expects_them() -> None:
    population = Population(7, 8, users=200, items=50)
    draw = population.draw(500, run=1, all_once=True)
    write = population.writer(draw)
    assert set(draw.users.tolist()) == set(range(200)) and set(draw.items.tolist()) == set(range(50))
    ids = set()
    for k in range(len(draw)):
        event = decode_event(write(k, 1_763_778_821_123))
        check(event, 1_763_778_821_123)
        assert population.home[draw.users[k]] == partition_of(event.user_id, 8)
        ids.add(event.event_id)
    assert len(ids) == 500
    assert np.array_equal(draw.users, Population(7, 8, users=200, items=50).draw(500, run=1, all_once=True).users)


def test_the_end_of_a_list_tells_what_it_reflects() -> None:
    body = ListWriter(["repeat"], "m").write("u", [b'"i"'], np.ones(1, np.float32), np.zeros(1, np.uint8), 1_763_778_821_123, (127, 2**40, 1_763_778_821_100))
    assert offset_in(body[-80:]) == 2**40
    assert offset_in(b"") == -1


def test_quantiles() -> None:
    assert quantile(list(range(1, 101)), 0.99) == 99 and quantile([1.0, float("inf")], 0.99) == float("inf")
    name = 'streamrec_freshness_seconds_bucket{le="%s"}'
    before = {name % "0.01": 5.0, name % "0.02": 5.0, name % "+Inf": 5.0}
    after = {name % "0.01": 55.0, name % "0.02": 105.0, name % "+Inf": 105.0}
    assert histogram_quantile(before, after, 0.5) == pytest.approx(10.0)
    assert histogram_quantile(before, after, 0.75) == pytest.approx(15.0)

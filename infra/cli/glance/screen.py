"""A report as people read it: one screen (24 lines of 100 columns hold two workers), or one plain line."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

#: What it is laid out for, where no terminal says otherwise.
WIDTH = 100
NOBODY_SAYS = "[dim]unknown, no worker says[/]"
#: How many sentences are shown where much is wrong; `--json` has all of them.
MOST_PROBLEMS = 5
CHANNELS_A_LINE = 4


def screen(report: dict[str, Any]) -> RenderableType:
    """All of it."""
    facts = Table.grid(padding=(0, 2, 0, 0))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(no_wrap=True, overflow="ellipsis")
    for name, text in _facts(report):
        facts.add_row(name, text)
    parts: list[RenderableType] = [_head(report), facts]
    if report["workers"]:
        parts.append(_workers(report))
    return Group(*parts)


def line(report: dict[str, Any]) -> str:
    """The same as one line, for logs."""
    recent, fresh = report["recent"] or {}, report["freshness"]
    parts = [f"{_time(report['at_ms'])} {'well' if report['healthy'] else 'NOT WELL'}", f"{len(report['workers'])} workers",
             f"{recent.get('events_per_s', 0):,.0f} events/s", f"{recent.get('lists_per_s', 0):,.0f} lists/s",
             f"lag {'?' if report['lag_total'] is None else format(report['lag_total'], ',')}"]
    if fresh:
        parts.append(f"freshness {_ms(fresh['p50_ms'])}/{_ms(fresh['p99_ms'])}")
    if report["baskets"]:
        parts.append(f"hit@10 {_share(report['baskets'], 'list')} (popular {_share(report['baskets'], 'popular')})")
    return ", ".join(parts) + "".join(f"; {problem}" for problem in report["problems"])


def _head(report: dict[str, Any]) -> Text:
    prefix = f", prefix {report['prefix']}" if report["prefix"] else ""
    head = Text("well" if report["healthy"] else "NOT WELL", style="bold green" if report["healthy"] else "bold red")
    head.append(f"  {_time(report['at_ms'])}{prefix}", style="dim")
    problems = report["problems"]
    for problem in problems[:MOST_PROBLEMS]:
        head.append(f"\n- {problem}", style="red")
    if len(problems) > MOST_PROBLEMS:
        head.append(f"\n- and {len(problems) - MOST_PROBLEMS} more", style="red")
    head.no_wrap, head.overflow = True, "ellipsis"
    return head


def _facts(report: dict[str, Any]) -> list[tuple[str, str]]:
    kafka, redis, stack = report["kafka"], report["redis"], report["stack"]
    topics = f"{len(report['topics'])} topics" if kafka["up"] else "[red]does not answer[/]"
    facts = [("Kafka", f"{escape(kafka['bootstrap'])}  {topics}"),
             ("Redis", f"{escape(redis['url'])}  {_redis(redis) if redis['up'] else '[red]does not answer[/]'}")]
    if stack["running"]:
        facts.append(("stack", f"local, in {escape(stack['home'])}"))
    facts += [("lag", _lag(report)), ("flow", _flow(report)), ("freshness", _freshness(report)), ("lists", _counts(report)),
              *_hits(report), ("model", _model(report)), ("dead letters", _letters(report))]
    return facts


def _redis(redis: dict[str, Any]) -> str:
    limit = redis["memory_limit_bytes"]
    of = f" of {_mib(limit)} ({redis['memory_bytes'] / limit:.0%})" if limit else ", no limit set"
    return f"{redis['version']}, {_mib(redis['memory_bytes'])}{of}, {redis['keys']:,} keys"


def _lag(report: dict[str, Any]) -> str:
    if report["lag_total"] is None:
        return NOBODY_SAYS
    worst = sorted(((n, p) for p, n in report["lag"].items() if n), reverse=True)[:4]
    places = f" (partition {', '.join(f'{p}: {n:,}' for n, p in worst)})" if worst else ""
    lessons = f", {report['lessons_lag']:,} messages of lessons" if report["lessons_lag"] is not None else ""
    oldest = f", oldest waiting user {report['oldest_dirty_ms'] / 1000:.1f} s" if report["oldest_dirty_ms"] is not None else ""
    return f"{report['lag_total']:,} events{places}{lessons}{oldest}"


def _flow(report: dict[str, Any]) -> str:
    recent = report["recent"]
    if not recent:
        return NOBODY_SAYS
    rejected = f", {recent['rejected']:,} rejected" if recent["rejected"] else ""
    return f"[bold]{recent['events_per_s']:,.0f}[/] events/s, [bold]{recent['lists_per_s']:,.0f}[/] lists/s{rejected} in the last {recent['seconds']:.0f} s"


def _freshness(report: dict[str, Any]) -> str:
    fresh = report["freshness"]
    if not fresh:
        return "no list in the last minute" if report["recent"] else NOBODY_SAYS
    return (f"p50 [bold]{_ms(fresh['p50_ms'])}[/], p99 [bold]{_ms(fresh['p99_ms'])}[/], {fresh['within_objective']:.1%} within "
            f"{fresh['objective_ms']:.0f} ms")


def _counts(report: dict[str, Any]) -> str:
    if report["lists"] is None:
        return NOBODY_SAYS
    about = "about " if report["counts_estimated"] else ""
    shadows = f"; shadows: {escape(', '.join(report['shadows']))}" if report["shadows"] else ""
    return f"{about}{report['lists']:,} lists, {about}{report['rows']:,} user rows, {report['items']:,} item rows{shadows}"


def _hits(report: dict[str, Any]) -> list[tuple[str, str]]:
    baskets = report["baskets"]
    drifts = "" if report["drifts"] is None else f", {report['drifts']} drops of the hit rate that stayed"
    if not baskets:
        return [("hit@10", f"no basket was judged yet{drifts}" if report["workers"] else NOBODY_SAYS)]
    text = (f"[bold]{_share(baskets, 'list')}[/] of the last {baskets['n']:,.0f} baskets, popularity {_share(baskets, 'popular')}{drifts}")
    channels = [f"{escape(name)} {_share(baskets, name)}" for name, rate in baskets["rates"].items()
                if rate and name not in ("list", "popular")]
    lines = [", ".join(channels[k:k + CHANNELS_A_LINE]) for k in range(0, len(channels), CHANNELS_A_LINE)]
    return [("hit@10", text), *((" each alone" if k == 0 else "", part) for k, part in enumerate(lines))]


def _model(report: dict[str, Any]) -> str:
    model, n = report["model"], len(report["workers"])
    if not n:
        return NOBODY_SAYS
    refused = f", [red]refused by {len(model['refused'])}[/]" if model["refused"] else ""
    if not model["version"]:
        return f"no release is served{refused}"
    age = f"{_age(model['age_s'])} old" if model["age_s"] is not None else "age unknown"
    return f"{model['version']}, {age}, served by {model['workers'][model['version']]} of {n} workers{refused}"


def _letters(report: dict[str, Any]) -> str:
    letters = report["dead_letters"]
    if not letters:
        return NOBODY_SAYS
    if not letters["n"]:
        return "none"
    newest = f", newest {_age((report['at_ms'] - letters['newest_ms']) / 1000)} old" if letters["newest_ms"] is not None else ""
    part = f" of the last {letters['looked_at']:,}" if letters["looked_at"] < letters["n"] else ""
    return f"{letters['n']:,}{newest}; {', '.join(f'{escape(reason)} {n:,}' for reason, n in letters['reasons'].items())}{part}"


def _workers(report: dict[str, Any]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    for name, right in (("worker", False), ("state", False), ("up", True), ("partitions", False), ("lag", True), ("waiting", True), ("events/s", True),
                        ("rows", True), ("memory", True), ("page", False)):
        table.add_column(name, no_wrap=True, overflow="ellipsis", justify="right" if right else "left", max_width=22)
    for sign in report["workers"]:
        recent = sign.get("recent") or {}
        rate = f"{recent['events'] / recent['seconds']:,.0f}" if recent.get("seconds") else "-"
        up_s = (report["at_ms"] - sign["started_at"]) / 1000 if "started_at" in sign else None
        table.add_row(
            escape(str(sign.get("id", "?"))), escape(str(sign.get("state", "?"))) if sign.get("ready") else "[red]not ready[/]",
            "-" if up_s is None else _age(up_s), _ranges(sign.get("partitions", [])), f"{sum((sign.get('lag') or {}).values()):,}",
            f"{sign.get('dirty_users', 0):,}", rate, f"{sign.get('rows', 0):,}",
            _mib(sign["memory_bytes"]) if "memory_bytes" in sign else "-", f":{sign.get('web_port', '?')}")
    return table


def _ranges(numbers: list[int]) -> str:
    """`0-3 7` for 0, 1, 2, 3 and 7."""
    runs: list[list[int]] = []
    for n in sorted(numbers):
        if runs and runs[-1][-1] == n - 1:
            runs[-1].append(n)
        else:
            runs.append([n])
    return " ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs) or "none"


def _share(baskets: dict[str, Any], name: str) -> str:
    return f"{baskets['rates'].get(name, 0.0):.1%}"


def _time(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}Z"


def _age(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f} ms"


def _mib(n_bytes: int) -> str:
    return f"{n_bytes / 2**20:,.0f} MiB"

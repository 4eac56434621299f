"""Records what workers' /metrics say while things go wrong, for the tests of the alert rules.

    python -m tests.live.record_incidents [INCIDENT ...]       (ten minutes for all; into tests/infra/incidents.json)

Two workers, real servers, a load; each incident begins well and is then really caused. A look is taken every 2 s and played back as one
each 30 s (`INTERVAL_S`): a time-lapse, so that the quarter of an hour that a rule waits takes a minute to record. Rates are thus told fifteen
times too low, shares and counts as they were. Kept is what the rules ask for. On a machine that has other things to do nothing is well.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import redis.asyncio
from aiokafka import AIOKafkaProducer
from prometheus_client.parser import text_string_to_metric_families

from infra.settings import Settings, stack_home
from infra.stack import LocalStack, WorkerProcess
from infra.topics import ensure_topics
from streams.partitioner import partition_of

ROOT = Path(__file__).parent.parent.parent
FILE = ROOT / "tests" / "infra" / "incidents.json"
RULES = ROOT / "infra" / "prometheus" / "alerts.yml"
LOOK_S, INTERVAL_S = 2.0, 30
LOOKS_WELL, LOOKS_ILL = 8, 40
RATE, N_USERS, N_ITEMS = 150.0, 2_000, 400
TIMEOUT_S = 1.9
WELL_S = 15.0

Series = dict[str, list[float | None]]


class Load:
    """Events at a rate until it is told otherwise, a share of them such as are rejected."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.rate, self.bad, self.n_users = settings, RATE, 0.002, N_USERS
        self._random, self._n = random.Random(7), 0

    async def run(self) -> None:
        producer = AIOKafkaProducer(**self.settings.kafka_client_args(), linger_ms=2)
        await producer.start()
        due_s = time.monotonic()
        while True:
            due_s = max(due_s + 1 / self.rate, time.monotonic() - 1.0)
            if (ahead_s := due_s - time.monotonic()) > 0:
                await asyncio.sleep(ahead_s)
            user = self._random.randrange(self.n_users)
            item = (user * 13 + min(int(self._random.expovariate(0.3)), N_ITEMS - 1)) % N_ITEMS
            self._n += 1
            event = {"event_id": f"e{self._n}", "user_id": f"u{user}", "item_id": f"i{item}", "event_type": "purchase",
                     "timestamp": time.time_ns() // 1_000_000}
            value = b"{" if self._random.random() < self.bad else json.dumps(event).encode()
            await producer.send(self.settings.topic("events"), value, key=f"u{user}".encode(),
                                partition=partition_of(f"u{user}", self.settings.partitions))


class Scraper:
    """Looks at the workers as Prometheus does, `up` included."""

    def __init__(self, ports: list[int]) -> None:
        self._ports = ports
        self._names = set(re.findall(r"streamrec_\w+", RULES.read_text()))

    async def record(self, n_looks: int, series: Series, n_before: int) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(TIMEOUT_S)) as session:
            for look in range(n_before, n_before + n_looks):
                due = asyncio.ensure_future(asyncio.sleep(LOOK_S))
                for k, port in enumerate(self._ports):
                    place = f'instance="worker-{k + 1}:8000",job="streamrec"'
                    try:
                        async with session.get(f"http://127.0.0.1:{port}/metrics") as page:
                            said = self._parsed(await page.text(), place)
                    except (TimeoutError, aiohttp.ClientError):
                        said = {}
                    for name, value in {**said, f"up{{{place}}}": float(bool(said))}.items():
                        series.setdefault(name, [None] * look).append(value)
                for values in series.values():
                    values += [None] * (look + 1 - len(values))
                await due

    def _parsed(self, text: str, place: str) -> dict[str, float]:
        found = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name in self._names and sample.labels.get("le", "0.1") == "0.1" and sample.labels.get("of", "list") in ("list", "popular"):
                    labels = ",".join(sorted([place, *(f'{name}="{value}"' for name, value in sample.labels.items())]))
                    found[f"{sample.name}{{{labels}}}"] = sample.value
        return found


async def throttle(workers: list[WorkerProcess]) -> None:
    """A machine that is much too slow: the workers run a tenth of the time."""
    try:
        while True:
            for worker in workers:
                worker.resume()
            await asyncio.sleep(0.01)
            for worker in workers:
                worker.pause()
            await asyncio.sleep(0.09)
    finally:
        for worker in workers:
            worker.resume()


async def record(stack: LocalStack, folder: Path, names: list[str]) -> AsyncIterator[tuple[str, Series]]:
    """These incidents, one after the other; between two of them all becomes well again."""
    settings = stack.settings(partitions=4)
    await ensure_topics(settings)
    workers = [WorkerProcess(settings, log_file=folder / f"w{k}.log") for k in range(2)]
    load, throttling = Load(settings), [asyncio.ensure_future(asyncio.sleep(0))]

    async def nothing() -> None:
        pass

    async def rejected() -> None:
        load.bad = 0.3

    async def flood() -> None:
        load.rate = 2_500.0
        throttling.append(asyncio.ensure_future(throttle(workers)))

    async def redis_gone() -> None:
        load.n_users = 2 * N_USERS  # of those who are new, rows have to be looked for
        stack.redis.kill()

    async def little_memory() -> None:
        await limit_memory(1.1)

    async def limit_memory(share: float) -> None:
        async with redis.asyncio.from_url(settings.redis_url) as client:
            await client.config_set("maxmemory", int((await client.info("memory"))["used_memory"] * share))

    async def stopped() -> None:
        workers[0].pause()

    async def well_again() -> None:
        load.rate, load.bad, load.n_users = RATE, 0.002, N_USERS
        throttling.pop().cancel() if len(throttling) > 1 else None
        stack.redis.start()
        await limit_memory(0.0)
        workers[0].resume()
        await asyncio.sleep(WELL_S)

    causes: dict[str, Callable[[], Awaitable[None]]] = {"well": nothing, "rejected": rejected, "flood": flood, "redis_gone": redis_gone,
                                                       "little_memory": little_memory, "stopped": stopped}
    try:
        ports = [int((await asyncio.to_thread(worker.wait_ready, 120.0))["web_port"]) for worker in workers]
        running = asyncio.ensure_future(load.run())
        await asyncio.sleep(WELL_S)
        for name in names or causes:
            scraper, series = Scraper(ports), Series()
            await scraper.record(LOOKS_WELL, series, 0)
            await causes[name]()
            await scraper.record(LOOKS_ILL, series, LOOKS_WELL)
            yield name, series
            await well_again()
            if running.done():
                running.result()
        running.cancel()
    finally:
        for worker in workers:
            worker.stop()


def notation(values: list[float | None]) -> str:
    """As promtool writes values: runs of equal ones as one, `_` where there is none."""
    runs: list[tuple[float | None, int]] = []
    for value in values:
        if runs and runs[-1][0] == value:
            runs[-1] = (value, runs[-1][1] + 1)
        else:
            runs.append((value, 1))
    return " ".join(f"_x{n}" if value is None else f"{value:.10g}" if n == 1 else f"{value:.10g}+0x{n - 1}" for value, n in runs)


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder, LocalStack(Path(folder), jars_home=stack_home(), die_with_parent=True) as stack:
        async for name, series in record(stack, Path(folder), sys.argv[1:]):
            told = json.loads(FILE.read_text())["incidents"] if FILE.exists() else {}
            told[name] = {one: notation(values) for one, values in series.items()}
            FILE.write_text(json.dumps({"interval_s": INTERVAL_S, "incidents": told}, indent=0) + "\n")
            print(f"{name}: {len(series)} series", file=sys.stderr, flush=True)


if __name__ == "__main__":
    asyncio.run(main())

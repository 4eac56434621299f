"""What `backlog` is compared with: a plain Faust agent, and bare aiokafka, which decode the same events and do nothing else.

`python -m benchmarks._compare faust|aiokafka '{"settings": ..., "events": n}'` prints {"events_per_s": ..., "events": n},
measured to the n-th record, from the first fetch (aiokafka) or the first record (Faust, which joins a group before).
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterable

from infra.settings import Settings
from streams.events import decode_event


class Meter:
    """Counts to n, and says how fast."""

    def __init__(self, n: int) -> None:
        self.n, self.count, self.began = n, 0, 0.0

    def add(self, records: int) -> bool:
        """True once n are counted."""
        self.began = self.began or time.perf_counter()
        self.count += records
        return self.count >= self.n

    def report(self) -> None:
        """Print it."""
        print(json.dumps({"events_per_s": self.count / (time.perf_counter() - self.began), "events": self.count}), flush=True)


async def bare(settings: Settings, meter: Meter) -> None:
    """aiokafka's `getmany` with its defaults, every partition, from the beginning."""
    from aiokafka import AIOKafkaConsumer

    async with AIOKafkaConsumer(settings.topic("events"), **settings.kafka_client_args(), auto_offset_reset="earliest",
                                enable_auto_commit=False) as consumer:
        meter.add(0)
        while True:
            for records in (await consumer.getmany(timeout_ms=1000)).values():
                for record in records:
                    decode_event(record.value)
                if meter.add(len(records)):
                    return meter.report()


def faust_agent(settings: Settings, meter: Meter) -> None:
    """An agent over single events, as Faust's own documents have it; Faust's defaults, its web pages off."""
    import faust

    with tempfile.TemporaryDirectory() as folder:
        app = faust.App("plain-faust", broker=f"kafka://{settings.kafka_bootstrap}", value_serializer="raw", key_serializer="raw",
                        web_enabled=False, topic_disable_leader=True, topic_allow_declare=False, datadir=folder)
        topic = app.topic(settings.topic("events"), value_serializer="raw", key_serializer="raw")
        done = asyncio.Event()

        @app.agent(topic)
        async def read(values: AsyncIterable[bytes]) -> None:
            async for value in values:
                decode_event(value)
                if meter.add(1) and not done.is_set():
                    meter.report()
                    done.set()

        async def run() -> None:
            await app.start()
            await done.wait()

        asyncio.set_event_loop(app.loop)
        app.loop.run_until_complete(run())
    os._exit(0)  # Faust takes its time to say goodbye, and nobody listens


def config_of(settings: Settings, events: int) -> str:
    """The second argument."""
    return json.dumps({"settings": {"kafka_bootstrap": settings.kafka_bootstrap, "prefix": settings.prefix}, "events": events})


def main() -> int:
    """argv: which, and JSON."""
    which, config = sys.argv[1], json.loads(sys.argv[2])
    settings, meter = Settings.load({}, **config["settings"]), Meter(config["events"])
    if which == "faust":
        faust_agent(settings, meter)
    else:
        asyncio.run(bare(settings, meter))
    return 0


if __name__ == "__main__":
    sys.exit(main())

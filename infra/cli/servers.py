"""`streamrec up` and `streamrec down`: the local stack."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from urllib.parse import urlsplit

from infra.settings import Settings
from infra.stack import LocalStack, StackError, missing_requirements
from infra.topics import ensure_topics

LOOPBACK = ("127.0.0.1", "localhost")


def up(args: argparse.Namespace, settings: Settings) -> int:
    """Starts what does not run, creates the topics, says where everything is."""
    kafka_port = args.kafka_port or _port_of(os.environ.get("STREAMREC_KAFKA_BOOTSTRAP"), "STREAMREC_KAFKA_BOOTSTRAP")
    redis_port = args.redis_port or _port_of(os.environ.get("STREAMREC_REDIS_URL"), "STREAMREC_REDIS_URL")
    stack = LocalStack(kafka_port=kafka_port, redis_port=redis_port)
    for server, port in ((stack.kafka, args.kafka_port), (stack.redis, args.redis_port)):
        if port and server.port != port:
            if server.alive:
                raise StackError(f"{server.name} already runs on port {server.port}, not {port}; `streamrec down` first")
            server.port = port
    if not stack.running:
        if missing := missing_requirements():
            raise StackError(missing)
        print(f"starting Kafka and Redis in {stack.home} ...", file=sys.stderr)
        stack.start()
    created = asyncio.run(ensure_topics(stack.settings(
        prefix=settings.prefix, partitions=settings.partitions, events_retention_s=settings.events_retention_s,
        interactions_retention_s=settings.interactions_retention_s)))
    print(f"Kafka  {stack.kafka.address}\nRedis  {stack.redis.url}\n"
          f"topics {'created: ' + ', '.join(created) if created else 'were there'}\n"
          "next: `streamrec worker` runs a worker, `streamrec status` shows the system, `streamrec down` ends this")
    return 0


def down(args: argparse.Namespace, settings: Settings) -> int:
    """Ends the servers of the note."""
    del settings
    stack = LocalStack()
    was_running = stack.kafka.alive or stack.redis.alive
    stack.stop(wipe=args.wipe)
    print(("stopped Kafka and Redis" if was_running else "nothing was running")
          + (", data removed" if args.wipe else f", data stays in {stack.home}" if was_running else ""))
    return 0


def _port_of(address: str | None, variable: str) -> int | None:
    """The port of an explicit setting, which wins over a free one; refused where it leads to another machine."""
    if not address:
        return None
    try:
        parts = urlsplit(address if "//" in address else f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if host not in LOOPBACK or port is None:
        raise StackError(f"{variable} is set and leads to a server that is not this machine's ({host}), so a local one "
                         f"would never be used; unset it, then `streamrec up` starts a local one")
    return port

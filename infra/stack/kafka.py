"""The local Kafka broker: Apache Kafka in KRaft mode, broker and controller in one Java process on loopback ports."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from infra.stack.jars import find_java, resolve_jars
from infra.stack.process import Server, StackError, answers, free_port, port_is_free

CLUSTER_ID = "c3RyZWFtcmVjLWxvY2FsMQ"  # any 16 bytes in base64; fixed, since the data folder is what tells stacks apart
HEAP = "512m"  # 360 MB of memory in all with what tests and benchmarks do; messages lie in the page cache, not here

PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
log.dirs={data}

# one broker, so one copy of everything it keeps for itself, and few partitions of it: they are opened at every start
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1

# infra/topics.py creates topics; an automatic one would have the wrong shape
auto.create.topics.enable=false
message.max.bytes=8388608
replica.fetch.max.bytes=8388608

# a worker that joins gets its partitions at once instead of after 3 s; sessions may be short, tests wait for them
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000

# after a kill the new broker is let in when the old one's session has ended; the default is 9 s
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500

num.network.threads=2
num.io.threads=4
# the default of 128 MB is a quarter of the heap; our compacted topics are small
log.cleaner.dedupe.buffer.size=16777216
"""


class KafkaServer(Server):
    """One broker; `address` is what clients take as bootstrap server."""

    name = "kafka"

    def __init__(self, home: Path, *, jars_home: Path, port: int | None = None, die_with_parent: bool = False) -> None:
        super().__init__(home, port=port, die_with_parent=die_with_parent)
        self._jars_home = jars_home
        self._controller_port: int | None = None

    @property
    def _config(self) -> Path:
        return self.home / "server.properties"

    def command(self) -> list[str]:
        java = find_java()
        if java is None:
            raise StackError("Java 17 or newer is not on the PATH; install it (Debian, Ubuntu: apt install default-jre-headless)")
        jars = resolve_jars(self._jars_home)
        data = self.home / "data"
        if self._controller_port is None or not port_is_free(self._controller_port):
            self._controller_port = free_port()
        self._config.write_text(PROPERTIES.format(port=self.port, controller_port=self._controller_port, data=data))
        java_command = [java, f"-Xmx{HEAP}", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-Djava.awt.headless=true",
                        # warnings only, but for the line that says the broker is open
                        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
                        "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info",
                        "-Dorg.slf4j.simpleLogger.showDateTime=true",
                        "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
                        "-cp", f"{jars}/*"]
        if not (data / "meta.properties").exists():
            done = subprocess.run([*java_command, "kafka.tools.StorageTool", "format", "--ignore-formatted",
                                   "-t", CLUSTER_ID, "-c", str(self._config)], capture_output=True, text=True)
            if done.returncode != 0:
                raise StackError(f"Kafka's data folder {data} cannot be prepared: {(done.stderr or done.stdout).strip()[-300:]}")
        return [*java_command, "kafka.Kafka", str(self._config)]

    def ready(self) -> bool:
        # The port opens before the broker may create topics; the log's line comes when it may.
        return self.said("Kafka Server started") and self.port is not None and answers(self.port)

    def marks(self) -> list[str]:
        return [str(self._config)]

    def note(self) -> dict[str, Any]:
        return {"bootstrap": self.address, "controller_port": self._controller_port, **super().note()}

    def adopt(self, note: dict[str, Any]) -> None:
        super().adopt(note)
        self._controller_port = note.get("controller_port")

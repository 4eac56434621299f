"""The event log: every valid event of the topic `events`, once, in Parquet files by event day; docs/event_log.md has the layout.

    with EventLog(folder).snapshot() as log:      # any number of readers, beside a running writer
        for part in log.parts(["user_id", "item_id", "time_ms"], days=(first, last)):
            ...

Written by `LogWriter` (one at a time), fed from Kafka by `Follower`. There is no index and no note of how far it has come: the
names of the files say that, so a crash at any step neither loses nor doubles an event.
"""

from __future__ import annotations

from consumers.event_log.compaction import Compacted
from consumers.event_log.following import Follower
from consumers.event_log.names import LogBusy, LogError
from consumers.event_log.reading import EventLog, Part, Snapshot
from consumers.event_log.writing import LogWriter

__all__ = ["Compacted", "EventLog", "Follower", "LogBusy", "LogError", "LogWriter", "Part", "Snapshot"]

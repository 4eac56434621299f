"""How a process tells what happens: one line an event of note on stderr, for people, or for programs as one JSON object.

No line of ours names a user, at any level: an event is told by its place in Kafka (partition and offset), where whoever may look finds the rest.

JSON: time (ISO-8601, UTC), level, logger, message, event (the message before its values are filled in: the same for all of its kind), process,
and for a failure error (type and message) and trace.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime

from infra.settings import Settings

TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
#: What would end a line early, or forge a second one.
BREAKS = str.maketrans({"\n": "\\n", "\r": "\\r", "\u2028": "\\u2028", "\u2029": "\\u2029", "\x85": "\\x85", "\x0b": "\\x0b", "\x0c": "\\x0c"})


class TextLine(logging.Formatter):
    """For people: a message is one line; behind a failure's follows its trace, indented."""

    def __init__(self) -> None:
        super().__init__(TEXT)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """The line without the trace."""
        record.message = record.message.translate(BREAKS)
        return super().formatMessage(record)

    def formatException(self, ei: object) -> str:  # noqa: N802 - logging's name
        """The trace."""
        return "  " + super().formatException(ei).replace("\n", "\n  ")  # type: ignore[arg-type]


class JsonLine(logging.Formatter):
    """For programs: one JSON object, traces within."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        told = {
            "time": f"{datetime.fromtimestamp(record.created, UTC):%Y-%m-%dT%H:%M:%S}.{int(record.msecs):03d}Z", "level": record.levelname,
            "logger": record.name, "message": record.getMessage(), "event": str(record.msg), "process": record.process,
        }
        if record.exc_info and (error := record.exc_info[1]) is not None:
            told |= {"error": f"{type(error).__name__}: {error}", "trace": "".join(traceback.format_exception(error))}
        return json.dumps(told, ensure_ascii=True)


def start_logs(settings: Settings) -> None:
    """From now on this process tells what happens as the settings say: `log_level`, `log_format`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLine() if settings.log_format == "json" else TextLine())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(settings.log_level)
    logging.captureWarnings(True)
    sys.excepthook = lambda kind, error, trace: root.critical("ended by a defect: %s", kind.__name__, exc_info=(kind, error, trace))

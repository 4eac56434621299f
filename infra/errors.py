"""The tree of errors. Whatever a user can cause is one of these; everything else is a defect and stops the process.

    StreamrecError
    ├── SettingsError        a setting is unknown or has a wrong value             (here; also as infra.settings.SettingsError)
    ├── TopicError           a topic is missing or has another shape               (infra.topics)
    ├── StackError           the local servers cannot be started or stopped        (infra.stack)
    ├── WorkerError          a worker process ended or did not become ready        (infra.stack.workers)
    ├── UsageError           the command line asks for something that is not there (infra.cli)
    ├── ReaderError ...      reading lists                                         (consumers.lists draws it)
    └── ...                  each part roots its own here, next to what raises it

Import the first two from `infra.settings`, as everybody does.
"""

from __future__ import annotations


class StreamrecError(Exception):
    """Root of every expected failure; the message says what was found, what was expected and what to do."""


class SettingsError(StreamrecError):
    """A setting is unknown, or its value cannot be used."""

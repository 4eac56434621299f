"""The trainer of the Transformer: keeps the event log, trains from it, judges, releases, announces; docs/trainer.md has the whole.

    service.py    the loop: log, reasons, one training at a time
    triggers.py   why a training starts
    training.py   one training, as steps that survive a kill
    learning.py   the step that takes long
    window.py     what is learned, and what is judged on
    judging.py    the gate
    surroundings.py   what a training takes from outside: events, items, who is served
    recorded.py   the same on a file, without Kafka
    texts.py      items by what is said of them
"""

from __future__ import annotations

from consumers.trainer.judging import Verdict
from consumers.trainer.learning import Report, TrainerError
from consumers.trainer.service import Trainer

__all__ = ["Report", "Trainer", "TrainerError", "Verdict"]

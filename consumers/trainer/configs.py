"""What the setting `train_model` says of the model and of its training, over what suits this system."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

from infra.settings import Settings, SettingsError
from models.transformer.config import ConfigError, ModelConfig, TrainConfig
from streams.events import EVENT_TYPES

#: What follows from the events and from the rows of users, and cannot be chosen: what was taken at one moment is predicted from what
#: was before all of it, as the lists are that stand when it comes.
GIVEN = {"n_types": len(EVENT_TYPES), "time": True, "n_text": 0, "distinct": True, "baskets": True}
#: A warm start has less to learn.
WARM_EPOCHS = 0.5


def configs(settings: Settings, *, seed: int) -> tuple[ModelConfig, TrainConfig]:
    """The two configurations; raises SettingsError."""
    kinds = {ModelConfig: typing.get_type_hints(ModelConfig), TrainConfig: typing.get_type_hints(TrainConfig)}
    chosen: dict[type, dict[str, Any]] = {ModelConfig: {"n_types": GIVEN["n_types"], "time": GIVEN["time"]},
                                          TrainConfig: {"distinct": GIVEN["distinct"], "baskets": GIVEN["baskets"], "seed": seed}}
    for part in filter(None, (part.strip() for part in settings.train_model.split(","))):
        name, _, text = (piece.strip() for piece in part.partition("="))
        owner = next((owner for owner, hints in kinds.items() if name in hints and name not in GIVEN), None)
        if owner is None:
            names = ", ".join(name for hints in kinds.values() for name in hints if name not in GIVEN)
            raise SettingsError(f"train_model has {part!r}; expected name=value with one of {names}")
        try:
            chosen[owner][name] = _value(kinds[owner][name], text)
        except ValueError:
            raise SettingsError(f"train_model has {part!r}; {text!r} is no value of {name}") from None
    try:
        return ModelConfig(**chosen[ModelConfig]), TrainConfig(**chosen[TrainConfig])
    except ConfigError as error:
        raise SettingsError(f"train_model is {settings.train_model!r}: {error}") from None


def warm(train: TrainConfig) -> TrainConfig:
    """The same for a training that begins with the last one's weights."""
    return dataclasses.replace(train, epochs=train.epochs * WARM_EPOCHS)


def _value(kind: Any, text: str) -> Any:
    if kind is bool:
        return {"true": True, "on": True, "1": True, "false": False, "off": False, "0": False}[text.lower()] if text.lower() in (
            "true", "on", "1", "false", "off", "0") else int("no")
    return kind(text) if kind in (int, float) else text

"""What a setting's text may be: conversion, limits, lists of name=number, and hiding of passwords.

In: texts of settings. Out: values, or a `SettingsError` that says what was found, what was expected and what is near.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from infra.errors import SettingsError

HIDDEN = "***"
EVENT_TYPES = ("view", "click", "add_to_cart", "like", "purchase", "rating", "dislike", "remove", "impression")


def hide_password(url: str) -> str:
    """The same URL with *** for a password in it."""
    parts = urlsplit(url)
    if "@" in parts.netloc:
        login, _, host = parts.netloc.rpartition("@")
        user, colon, _ = login.partition(":")
        parts = parts._replace(netloc=f"{user}{colon}{HIDDEN if colon else ''}@{host}")
    query = re.sub(r"((?:^|&)password=)[^&]*", rf"\g<1>{HIDDEN}", parts.query)
    return urlunsplit(parts._replace(query=query))


def nearest(name: str, known: list[str]) -> str:
    """Ends a sentence about an unknown name with the known one that is most like it."""
    close = difflib.get_close_matches(name.upper() if known[0].isupper() else name, known, n=1, cutoff=0.0)
    return f"the nearest is {close[0]}; `streamrec settings` lists all"


def convert(field: dataclasses.Field[Any], value: Any, source: str) -> Any:
    """The value in the type of the field's default; a text may come from the environment."""
    kind = type(field.default)
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise SettingsError(f"{source} is {value!r}; expected {kind.__name__}")
    if kind is int:
        try:
            return int(str(value).replace("_", ""))
        except ValueError:
            raise SettingsError(f"{source} is {value!r}; expected a whole number"
                                f"{' of ' + field.metadata['unit'] if field.metadata['unit'] else ''}") from None
    if kind is float:
        try:
            return float(value)
        except ValueError:
            raise SettingsError(f"{source} is {value!r}; expected a number") from None
    return str(value)


def check(field: dataclasses.Field[Any], value: Any) -> None:
    """Refuses what lies outside the field's limits or choices."""
    low, high, choices = field.metadata["low"], field.metadata["high"], field.metadata["choices"]
    if choices and value not in choices:
        raise SettingsError(f"{field.name} is {value!r}; expected one of {', '.join(choices)}")
    if (low is not None and value < low) or (high is not None and value > high):
        reach = f"{low} or more" if high is None else f"{low} to {high}"
        raise SettingsError(f"{field.name} is {value}; expected {reach}")


def parse_pairs(name: str, text: str) -> dict[str, float]:
    """`a=1,b=2` as a dictionary."""
    pairs: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, equals, number = part.partition("=")
        try:
            pairs[key.strip()] = float(number)
        except ValueError:
            equals = ""
        if not equals or not key.strip() or not math.isfinite(pairs[key.strip()]):
            raise SettingsError(f"{name} has {part!r}; expected name=number, such as purchase=5, separated by commas")
    return pairs


def parse_scale(name: str, text: str) -> tuple[float, float, float] | None:
    """`1,3,5` as lowest, neutral and highest; empty: None."""
    if not text.strip():
        return None
    try:
        low, neutral, high = (float(part) for part in text.split(","))
    except ValueError:
        low = neutral = high = math.nan
    if not -math.inf < low < neutral < high < math.inf:
        raise SettingsError(f"{name} is {text!r}; expected lowest,neutral,highest in ascending order, such as 1,3,5, "
                            "or nothing, if ratings are to count alike")
    return low, neutral, high


def known_types(name: str, types: Iterable[str]) -> None:
    """Refuses an event type that the contract does not name."""
    for kind in types:
        if kind not in EVENT_TYPES:
            raise SettingsError(f"{name} names the event type {kind!r}; {nearest(kind, list(EVENT_TYPES))}")

"""Every setting of streamrec, and the only place that reads the environment.

In: keyword overrides, variables named STREAMREC_<SETTING>, the file that `streamrec up` leaves behind.
Out: one frozen `Settings`, checked. `describe()` prints all of them with default, unit and source, secrets hidden.

The root of all errors, `StreamrecError`, and `SettingsError` are named here too; infra/errors.py draws the tree.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from infra.errors import SettingsError, StreamrecError
from infra.setting_checks import EVENT_TYPES, HIDDEN, check, convert, hide_password, known_types, nearest, parse_pairs, parse_scale

__all__ = ["EVENT_TYPES", "HOME_VARIABLE", "STACK_FILE", "TOPICS", "Settings", "SettingsError", "StreamrecError", "hide_password",
           "stack_file", "stack_home"]

ENV_PREFIX = "STREAMREC_"
HOME_VARIABLE = "STREAMREC_HOME"  # where the local stack lives; it says where to read settings from, so it is none itself
STACK_FILE = "stack.json"
TOPICS = ("events", "items", "interactions", "lessons", "models", "erasures", "events.dlq")
FIRST_GENERATION = "1"
OWN_TOPICS = ("interactions", "lessons")  # each generation has its own, all share the others
# what a generation may have of its own: what says how rows and lists are made, not where things lie or how work is done
OWN_SETTINGS = ("list_size", "retention_s", "weights", "rating_scale", "seen_types", "repeat_half_life_s", "popularity_half_life_s",
                "covisitation_half_life_s", "covisitation_window_s", "covisitation_depth", "learn", "mf_recency", "blend",
                "publish_embeddings")
SECURITY_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
SASL_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
LOG_FORMATS = ("text", "json")
DAY_S = 86_400
MAX_WEIGHT = 1e6  # a weight is kept as fixed point in 32 bits


def _setting(default: Any, doc: str, unit: str = "", *, secret: bool = False, low: float | None = None,
             high: float | None = None, choices: tuple[str, ...] = ()) -> Any:
    """One field with what `describe()` prints and what `load` checks."""
    return dataclasses.field(default=default, metadata={"doc": doc, "unit": unit, "secret": secret, "low": low,
                                                        "high": high, "choices": choices})


@dataclasses.dataclass(frozen=True, repr=False, kw_only=True)
class Settings:
    """All settings, checked. Build it with `Settings.load()`; names are those of the variables, lower case."""

    kafka_bootstrap: str = _setting("127.0.0.1:9092", "Kafka brokers, comma separated", "host:port")
    kafka_security_protocol: str = _setting("PLAINTEXT", "how to talk to Kafka", choices=SECURITY_PROTOCOLS)
    kafka_sasl_mechanism: str = _setting("PLAIN", "how to log in where the protocol is SASL_*", choices=SASL_MECHANISMS)
    kafka_user: str = _setting("", "Kafka user, for SASL_*")
    kafka_password: str = _setting("", "Kafka password, for SASL_*", secret=True)
    kafka_ssl_cafile: str = _setting("", "certificates to trust for Kafka; empty: the system's", "path")
    kafka_ssl_certfile: str = _setting("", "client certificate for Kafka", "path")
    kafka_ssl_keyfile: str = _setting("", "key of the client certificate", "path")
    redis_url: str = _setting("redis://127.0.0.1:6379/0", "Redis; rediss:// means TLS", "URL")
    redis_user: str = _setting("", "Redis user, where the URL names none")
    redis_password: str = _setting("", "Redis password, where the URL names none", secret=True)
    redis_ssl_cafile: str = _setting("", "certificates to trust for Redis; empty: the system's", "path")
    prefix: str = _setting("", "goes before all topics, keys and the group, so that systems can share servers")
    generation: str = _setting("", "which generation of state a worker serves; empty: the one that is live")
    group: str = _setting("streamrec", "Kafka consumer group of the workers (after the prefix)")
    partitions: int = _setting(8, "partitions of events and interactions; fixed for a generation", low=1, high=4096)
    replication: int = _setting(1, "copies of each topic that Kafka keeps", low=1, high=15)
    list_size: int = _setting(100, "items in a list (N)", "items", low=1, high=1000)
    list_ttl_s: int = _setting(30 * DAY_S, "a list that nothing renews goes after this", "s", low=1)
    retention_s: int = _setting(365 * DAY_S, "a user silent for longer than this, in event time, starts anew", "s", low=1)
    events_retention_s: int = _setting(-1, "how long Kafka keeps events; -1: forever", "s", low=-1)
    interactions_retention_s: int = _setting(-1, "how long Kafka keeps interactions; -1: forever", "s", low=-1)
    weights: str = _setting("view=1,click=1,add_to_cart=3,like=3,purchase=5,rating=3,dislike=-3,remove=-1,impression=0",
                            "what one event of a type counts; types not named keep their default", "type=weight,...")
    rating_scale: str = _setting("1,3,5", "lowest, neutral and highest value of a rating: the highest counts the type's weight, "
                                            "neutral nothing, below it is a dislike in degree (empty: values are not read)",
                                 "low,neutral,high")
    erasure_key: str = _setting("", "key of the hashes by which erased users are known: the same for workers, trainer and command line, and for good",
                                secret=True)
    seen_types: str = _setting("", "event types after which an item is not shown to that user again (dislike and remove "
                                   "always do that)", "type,...")
    max_users: int = _setting(200_000, "user rows one worker keeps in memory", "rows", low=64)
    commit_interval_ms: int = _setting(100, "how often rows and checkpoints go to Redis", "ms", low=1)
    items_interval_ms: int = _setting(10_000, "how often item rows that keep changing go to Redis", "ms", low=1)
    refresh_chunk: int = _setting(64, "users whose lists are computed together", "users", low=1, high=65_536)
    fetch_wait_ms: int = _setting(4, "how long a fetch under load waits for more events", "ms", low=1)
    fetch_min_bytes: int = _setting(65_536, "bytes that end a fetch at once", "bytes", low=1)
    session_timeout_ms: int = _setting(8_000, "a worker silent for this long loses its partitions", "ms", low=1_000)
    request_timeout_ms: int = _setting(120_000, "how long one request to Kafka may take before it is given up", "ms", low=1_000)
    repeat_half_life_s: int = _setting(30 * DAY_S, "repeat channel: weight halves in this event time", "s", low=1)
    popularity_half_life_s: int = _setting(30 * DAY_S, "popularity: weight halves in this event time", "s", low=1)
    covisitation_half_life_s: int = _setting(30 * DAY_S, "co-visitation: weight halves in this event time", "s", low=1)
    covisitation_window_s: int = _setting(DAY_S, "items further apart than this do not follow each other", "s", low=1)
    covisitation_depth: int = _setting(3, "how many earlier items an item follows", "items", low=1, high=16)
    learn: str = _setting("on", "whether what learns (matrix factors) learns from events; off: as it was kept last", choices=("on", "off"))
    mf_recency: float = _setting(0.8, "matrix factors: how much less each older item of a user says (1: all the same)", low=0.01, high=1.0)
    blend: str = _setting("repeat=1,covisitation=0.5,two_hop=0.5,mf=0.3,transformer=0.3,popular_1h=0.05,popular_1d=0.1,popular_7d=0.2,popular=0.3",
                          "weight of each channel in a list; a channel not named is out", "channel=weight,...")
    models_store: str = _setting("", "where releases lie: a folder, or a URL that fsspec reaches; empty: models in the stack's folder", "path or URL")
    publish_embeddings: str = _setting("off", "whether users' vectors under the release that is served go to Redis, as emb:<user>", choices=("on", "off"))
    train_folder: str = _setting("", "where the trainer keeps the event log and its work; empty: trainer in the stack's folder", "path")
    event_log_folder: str = _setting("", "event log from which a worker reads what Kafka has dropped (the trainer's, or an exported one); empty: none",
                                     "path")
    train_every_s: int = _setting(21_600, "a training starts so long after the last one did; 0: never by the clock", "s", low=0)
    train_events: int = _setting(0, "a training starts after so many new events; 0: never by their number", "events", low=0)
    train_on_drift: str = _setting("on", "whether a training starts when the hit rate has fallen for good", choices=("on", "off"))
    train_window_days: int = _setting(60, "the newest event days, which a training learns whole", "days", low=1)
    train_exemplars: float = _setting(0.2, "events of earlier days that it learns too, as a share of the window's", low=0.0, high=10.0)
    train_model: str = _setting("", "what differs from the model's and the training's defaults, such as d=128,epochs=5", "name=value,...")
    train_text: str = _setting("", "what of items tells a release of those that nobody has taken: title, category or properties, hashed; "
                               "or vector:NAME, a property that holds a vector; empty: nothing", "name,...")
    train_rounding: str = _setting("off", "what of a release is rounded to int8: item vectors, or the graph's matrices too (all)",
                               choices=("off", "vectors", "all"))
    train_log_days: int = _setting(400, "event days that the event log keeps; -1: all", "days", low=-1)
    train_log_flush_s: int = _setting(60, "how long an event waits before it is written to the event log", "s", low=1)
    train_web_port: int = _setting(0, "port of the trainer's metrics, at web_host; 0: a free one, said in the log", low=0, high=65_535)
    web_host: str = _setting("127.0.0.1", "where a worker's metrics and health pages listen", "address")
    web_port: int = _setting(0, "their port; 0: a free one, said in the log and by `streamrec status`", low=0, high=65_535)
    watchdog_s: int = _setting(60, "a worker that lags and makes no progress for this long ends itself", "s", low=1)
    log_level: str = _setting("INFO", "least severe message that is logged", choices=LOG_LEVELS)
    log_format: str = _setting("text", "how worker and trainer log: lines for people, or one JSON object a line", choices=LOG_FORMATS)

    @classmethod
    def load(cls, env: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
        """Overrides > environment > the stack file > defaults; an override of None counts as not given.

        Raises SettingsError for an unknown name (it says the nearest known one) and for a value out of range.
        """
        env = os.environ if env is None else env
        fields = {field.name: field for field in dataclasses.fields(cls)}
        values: dict[str, Any] = {name: (text, f"{stack_file(env)}") for name, text in _from_stack(env).items()}
        for variable, text in env.items():
            if not variable.startswith(ENV_PREFIX) or variable == HOME_VARIABLE:
                continue
            name = variable.removeprefix(ENV_PREFIX).lower()
            if name not in fields or variable != variable.upper():
                known = [ENV_PREFIX + known.upper() for known in fields] + [HOME_VARIABLE]
                raise SettingsError(f"the environment has {variable}, which is no setting; {nearest(variable, known)}")
            values[name] = (text, variable)
        for name, value in overrides.items():
            if name not in fields:
                raise SettingsError(f"{name} is no setting; {nearest(name, list(fields))}")
            if value is not None:
                values[name] = (value, name)
        return cls(**{name: convert(fields[name], value, source) for name, (value, source) in values.items()})

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            check(field, getattr(self, field.name))
        if not re.fullmatch(r"[A-Za-z0-9._-]{0,100}", self.prefix):
            raise SettingsError(f"prefix is {self.prefix!r}; expected at most 100 of A-Z a-z 0-9 . _ -, "
                                "which is what both Kafka topics and our Redis keys can carry")
        if not re.fullmatch(r"([a-z0-9][a-z0-9-]{0,31})?", self.generation):
            raise SettingsError(f"generation is {self.generation!r}; expected at most 32 of a-z 0-9 -, such as 'trial'; empty: the live one")
        if not self.group:
            raise SettingsError("group is empty; workers need a consumer group, such as the default 'streamrec'")
        if urlsplit(self.redis_url).scheme not in ("redis", "rediss", "unix"):
            raise SettingsError(f"redis_url is {hide_password(self.redis_url)!r}; expected redis://host:port/0, or rediss:// for TLS")
        if self.kafka_security_protocol.startswith("SASL") and not self.kafka_user:
            raise SettingsError(f"kafka_security_protocol is {self.kafka_security_protocol}, which needs kafka_user "
                                "and kafka_password; set STREAMREC_KAFKA_USER and STREAMREC_KAFKA_PASSWORD")
        self.type_weights(), self.rating_points(), self.blend_weights(), self.seen_event_types()  # a wrong text must fail here, not in a worker

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in self.public().items())})"

    def public(self) -> dict[str, Any]:
        """All settings by name, secrets replaced by ***; safe to print, log and send."""
        hidden: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            hidden[field.name] = HIDDEN if field.metadata["secret"] and value else value
        hidden["redis_url"] = hide_password(self.redis_url)
        return hidden

    def describe(self) -> str:
        """One paragraph a setting: variable, value, default, unit, meaning; secrets hidden."""
        lines = []
        for field in dataclasses.fields(self):
            value = self.public()[field.name]
            note = "the default" if getattr(self, field.name) == field.default else f"default {field.default!r}"
            unit = f" [{field.metadata['unit']}]" if field.metadata["unit"] else ""
            lines.append(f"{ENV_PREFIX}{field.name.upper()}={value}{unit}\n    {field.metadata['doc']} ({note})")
        return "\n".join(lines)

    def environment(self) -> dict[str, str]:
        """Variables that give a subprocess exactly these settings; secrets are in it, so hand it on and print it nowhere."""
        return {ENV_PREFIX + field.name.upper(): str(getattr(self, field.name)) for field in dataclasses.fields(self)}

    def topic(self, name: str) -> str:
        """Full name of one of our topics: events, items, interactions, lessons, models, erasures, events.dlq."""
        if name not in TOPICS:
            raise SettingsError(f"{name!r} is no topic of streamrec; there are {', '.join(TOPICS)}")
        return self.prefix + (self._of_generation + "." if name in OWN_TOPICS and self._of_generation else "") + name

    def key(self, name: str) -> str:
        """Full name of a Redis key."""
        return self.prefix + name

    @property
    def group_id(self) -> str:
        """Full name of the consumer group, which is the generation's."""
        return self.prefix + self.group + (f".{self._of_generation}" if self._of_generation else "")

    @property
    def _of_generation(self) -> str:
        return f"g{self.generation}" if self.generation not in ("", FIRST_GENERATION) else ""

    def with_own(self, generation: str, own: Mapping[str, Any]) -> Settings:
        """The same for a generation with settings of its own; raises SettingsError for one that no generation has of its own."""
        fields = {field.name: field for field in dataclasses.fields(self)}
        for name in own:
            if name not in OWN_SETTINGS:
                raise SettingsError(f"{name} is nothing that a generation has of its own; there are {', '.join(OWN_SETTINGS)}")
        values = {name: convert(fields[name], value, f"{name} of generation {generation}") for name, value in own.items()}
        return dataclasses.replace(self, generation=generation, **values)

    def store(self) -> str:
        """Where releases lie: a folder or a URL."""
        return self.models_store or str(stack_home() / "models")

    def trainer_folder(self) -> Path:
        """Where the trainer keeps the event log (`log` in it) and its work."""
        return Path(self.train_folder) if self.train_folder else stack_home() / "trainer"

    def type_weights(self) -> dict[str, float]:
        """Weight of one event by type; every known type is there."""
        default = next(field.default for field in dataclasses.fields(self) if field.name == "weights")
        weights = parse_pairs("weights", str(default)) | parse_pairs("weights", self.weights)
        known_types("weights", weights)
        for kind, weight in weights.items():
            if abs(weight) > MAX_WEIGHT:
                raise SettingsError(f"weights has {kind}={weight:g}; a weight lies within ±{MAX_WEIGHT:g}")
        return weights

    def rating_points(self) -> tuple[float, float, float] | None:
        """Lowest, neutral and highest value of a rating; None: values are not read."""
        return parse_scale("rating_scale", self.rating_scale)

    def blend_weights(self) -> dict[str, float]:
        """Weight of each channel in a list, by channel."""
        blend = parse_pairs("blend", self.blend)
        for channel, weight in blend.items():
            if weight < 0:
                raise SettingsError(f"blend has {channel}={weight:g}; a channel's weight is 0 or more, 0 switches it off")
        return blend

    def seen_event_types(self) -> frozenset[str]:
        """Event types after which an item leaves the user's lists; dislike and remove are always among them."""
        types = {part.strip() for part in self.seen_types.split(",") if part.strip()}
        known_types("seen_types", types)
        return frozenset(types | {"dislike", "remove"})

    def kafka_client_args(self) -> dict[str, Any]:
        """Keyword arguments of every aiokafka client: address, protocol, login, TLS context."""
        args: dict[str, Any] = {"bootstrap_servers": self.kafka_bootstrap, "security_protocol": self.kafka_security_protocol}
        if self.kafka_security_protocol.startswith("SASL"):
            args |= {"sasl_mechanism": self.kafka_sasl_mechanism, "sasl_plain_username": self.kafka_user,
                     "sasl_plain_password": self.kafka_password}
        if self.kafka_security_protocol.endswith("SSL"):
            try:
                context = ssl.create_default_context(cafile=self.kafka_ssl_cafile or None)
                if self.kafka_ssl_certfile:
                    context.load_cert_chain(self.kafka_ssl_certfile, self.kafka_ssl_keyfile or None)
            except OSError as error:  # ssl.SSLError is one too
                raise SettingsError(f"the certificates for Kafka (cafile {self.kafka_ssl_cafile!r}, certfile "
                                    f"{self.kafka_ssl_certfile!r}) cannot be used: {error}; give readable PEM files") from error
            args["ssl_context"] = context
        return args

    def redis_client_args(self) -> dict[str, Any]:
        """Keyword arguments for `redis.from_url(settings.redis_url, ...)`, sync or async; what the URL names wins."""
        args: dict[str, Any] = {}
        if self.redis_user:
            args["username"] = self.redis_user
        if self.redis_password:
            args["password"] = self.redis_password
        if self.redis_ssl_cafile and self.redis_url.startswith("rediss://"):
            args["ssl_ca_certs"] = self.redis_ssl_cafile
        return args


def stack_home(env: Mapping[str, str] | None = None) -> Path:
    """Folder of the local stack: $STREAMREC_HOME, else .streamrec here."""
    env = os.environ if env is None else env
    return Path(env.get(HOME_VARIABLE) or ".streamrec").absolute()


def stack_file(env: Mapping[str, str] | None = None) -> Path:
    """The file in which `streamrec up` notes addresses and process ids."""
    return stack_home(env) / STACK_FILE


def _from_stack(env: Mapping[str, str]) -> dict[str, str]:
    path = stack_file(env)
    try:
        stack = json.loads(path.read_text())
        found = {"kafka_bootstrap": stack.get("kafka", {}).get("bootstrap"), "redis_url": stack.get("redis", {}).get("url")}
        return {name: text for name, text in found.items() if text}  # while the stack starts, one is there before the other
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        raise SettingsError(f"{path} cannot be read as the note of `streamrec up` ({error!r}); "
                            "run `streamrec down`, or remove the file") from error

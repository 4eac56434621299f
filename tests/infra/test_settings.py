"""Settings: what wins, what is refused, and that no secret is ever printed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from infra.settings import Settings, SettingsError, hide_password


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with the note of a running stack."""
    (tmp_path / "stack.json").write_text(json.dumps({"kafka": {"bootstrap": "127.0.0.1:11"}, "redis": {"url": "redis://127.0.0.1:12/0"}}))
    return tmp_path


def test_override_beats_environment_beats_stack_beats_default(home: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    nowhere = {"STREAMREC_HOME": str(tmp_path_factory.mktemp("empty"))}
    assert Settings.load(nowhere).kafka_bootstrap == "127.0.0.1:9092"
    here = {"STREAMREC_HOME": str(home)}
    assert Settings.load(here).kafka_bootstrap == "127.0.0.1:11"
    here["STREAMREC_KAFKA_BOOTSTRAP"] = "k:1"
    loaded = Settings.load(here)
    assert (loaded.kafka_bootstrap, loaded.redis_url) == ("k:1", "redis://127.0.0.1:12/0")
    assert Settings.load(here, kafka_bootstrap="k:2").kafka_bootstrap == "k:2"
    assert Settings.load(here, kafka_bootstrap=None).kafka_bootstrap == "k:1"


def test_half_a_note_gives_what_is_there(home: Path) -> None:
    (home / "stack.json").write_text(json.dumps({"redis": {"url": "redis://127.0.0.1:12/0"}}))
    loaded = Settings.load({"STREAMREC_HOME": str(home)})
    assert (loaded.kafka_bootstrap, loaded.redis_url) == ("127.0.0.1:9092", "redis://127.0.0.1:12/0")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"kafka": 3}'])
def test_a_broken_note_is_named(home: Path, text: str) -> None:
    (home / "stack.json").write_text(text)
    with pytest.raises(SettingsError, match="stack.json cannot be read"):
        Settings.load({"STREAMREC_HOME": str(home)})


def test_every_setting_has_a_doc_and_survives_the_environment() -> None:
    settings = Settings(redis_password="s", prefix="p.", partitions=3, weights="view=2")
    assert Settings.load(settings.environment()) == settings
    for field in dataclasses.fields(Settings):
        assert field.metadata["doc"], field.name
        assert f"STREAMREC_{field.name.upper()}=" in settings.describe()


@pytest.mark.parametrize(("env", "said"), [
    ({"STREAMREC_REDISURL": "x"}, "the nearest is STREAMREC_REDIS_URL"),
    ({"STREAMREC_partitions": "3"}, "the nearest is STREAMREC_PARTITIONS"),
    ({"STREAMREC_PARTITIONS": "many"}, "STREAMREC_PARTITIONS is 'many'; expected a whole number"),
    ({"STREAMREC_PARTITIONS": "0"}, "partitions is 0; expected 1 to 4096"),
    ({"STREAMREC_PARTITIONS": "2.5"}, "expected a whole number"),
    ({"STREAMREC_PREFIX": "a{b}"}, "prefix is 'a{b}'"),
    ({"STREAMREC_GROUP": ""}, "group is empty"),
    ({"STREAMREC_REDIS_URL": "http://x"}, "expected redis://"),
    ({"STREAMREC_WEIGHTS": "buy=3"}, "the nearest is"),
    ({"STREAMREC_WEIGHTS": "view=nan"}, "expected name=number"),
    ({"STREAMREC_WEIGHTS": "view"}, "expected name=number"),
    ({"STREAMREC_BLEND": "repeat=-1"}, "0 or more"),
    ({"STREAMREC_RATING_SCALE": "1,5"}, "lowest,neutral,highest"),
    ({"STREAMREC_RATING_SCALE": "5,2.5,1"}, "ascending"),
    ({"STREAMREC_RATING_SCALE": "1,1,5"}, "ascending"),
    ({"STREAMREC_RATING_SCALE": "0,nan,1"}, "ascending"),
    ({"STREAMREC_RATING_SCALE": "0,1,inf"}, "ascending"),
    ({"STREAMREC_SEEN_TYPES": "bought"}, "event type 'bought'"),
    ({"STREAMREC_KAFKA_SECURITY_PROTOCOL": "TLS"}, "expected one of PLAINTEXT"),
    ({"STREAMREC_KAFKA_SECURITY_PROTOCOL": "SASL_SSL"}, "needs kafka_user"),
])
def test_wrong_settings_are_refused_with_the_way_out(env: dict[str, str], said: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as refusal:
        Settings.load({"STREAMREC_HOME": str(tmp_path), **env})
    assert said in str(refusal.value)


def test_no_secret_is_printed() -> None:
    url = "rediss://app:hush1@cache:6380/0?password=hush2"
    settings = Settings(redis_url=url, redis_password="hush3", kafka_password="hush4", kafka_user="me",
                        kafka_security_protocol="SASL_PLAINTEXT")
    for shown in (repr(settings), str(settings), f"{settings}", settings.describe(), json.dumps(settings.public())):
        assert "hush" not in shown
        assert "cache:6380" in shown
    with pytest.raises(SettingsError) as refusal:
        Settings(redis_url="http://app:hush@x")
    assert "hush" not in str(refusal.value)


def test_hiding_leaves_the_rest_of_a_url() -> None:
    assert hide_password("redis://127.0.0.1:6379/0") == "redis://127.0.0.1:6379/0"
    assert hide_password("redis://:pw@h:1/2") == "redis://:***@h:1/2"
    assert hide_password("redis://me@h:1/2") == "redis://me@h:1/2"


def test_weights_keep_the_types_that_are_not_named() -> None:
    weights = Settings(weights="purchase=7").type_weights()
    assert (weights["purchase"], weights["view"], weights["impression"]) == (7.0, 1.0, 0.0)
    assert Settings(seen_types="purchase, like").seen_event_types() == {"purchase", "like", "dislike", "remove"}


def test_clients_get_login_and_tls(tmp_path: Path) -> None:
    plain = Settings().kafka_client_args()
    assert plain == {"bootstrap_servers": "127.0.0.1:9092", "security_protocol": "PLAINTEXT"}
    login = Settings(kafka_security_protocol="SASL_SSL", kafka_sasl_mechanism="SCRAM-SHA-512", kafka_user="u",
                     kafka_password="p").kafka_client_args()
    assert (login["sasl_mechanism"], login["sasl_plain_username"], login["sasl_plain_password"]) == ("SCRAM-SHA-512", "u", "p")
    assert login["ssl_context"] is not None
    with pytest.raises(SettingsError, match="cannot be used"):
        Settings(kafka_security_protocol="SSL", kafka_ssl_cafile=str(tmp_path / "none.pem")).kafka_client_args()
    assert Settings(redis_url="rediss://h", redis_user="u", redis_password="p", redis_ssl_cafile="ca.pem").redis_client_args() == {
        "username": "u", "password": "p", "ssl_ca_certs": "ca.pem"}


def test_names_carry_the_prefix() -> None:
    settings = Settings(prefix="shop.")
    assert (settings.topic("events"), settings.key("rec:u1"), settings.group_id) == ("shop.events", "shop.rec:u1", "shop.streamrec")
    with pytest.raises(SettingsError, match="no topic"):
        settings.topic("event")

"""Which servers the local stack takes: its own where Java, Maven and Redis are there, else containers, else a clear refusal.

Docker itself is played by a script that notes how it was called and remembers what is "running".
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from infra.settings import Settings
from infra.stack import LocalStack, StackError, missing_requirements
from infra.stack.jars import POM, resolve_jars

FAKE_DOCKER = """#!/bin/sh
here=$(dirname "$0")
echo "PORT=$PORT $*" >> "$here/calls"
case "$*" in
  info|"compose version") exit 0;;
  *" up --detach --wait "*) touch "$here/$3";;
  *" ps "*) if [ -e "$here/$3" ]; then echo 0123abc; fi;;
  *" down"*|*" kill "*|*" stop "*) rm -f "$here/$3";;
  *) echo "unexpected: $*" >&2; exit 1;;
esac
"""


@pytest.fixture
def only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with nothing on it but what the test puts there (and what a shell script needs)."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in ("sh", "touch", "rm", "dirname"):
        (folder / tool).symlink_to(shutil.which(tool) or f"/bin/{tool}")
    monkeypatch.setenv("PATH", str(folder))
    return folder


def add(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(script)
    path.chmod(0o755)


def test_nothing_there_is_said_in_one_sentence(only: Path, tmp_path: Path) -> None:
    said = missing_requirements(tmp_path / "home")
    assert "Java 17 or newer and Maven" in said and "Docker" in said and "install" in said and "\n" not in said
    with pytest.raises(StackError):
        LocalStack(tmp_path / "home").start()
    assert not (tmp_path / "home" / "stack.json").exists()


def test_an_old_java_is_no_java(only: Path, tmp_path: Path) -> None:
    add(only, "java", "#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n")
    add(only, "mvn", "#!/bin/sh\n")
    assert "Java 17 or newer," in missing_requirements(tmp_path / "home") + ","
    add(only, "java", "#!/bin/sh\necho 'openjdk version \"21.0.2\"' >&2\n")
    assert missing_requirements(tmp_path / "home") == ""


def test_a_maven_that_fails_is_quoted_and_leaves_no_half_folder(only: Path, tmp_path: Path) -> None:
    add(only, "mvn", "#!/bin/sh\necho '[ERROR] no route to host' >&2; exit 1\n")
    with pytest.raises(StackError, match="no route to host"):
        resolve_jars(tmp_path / "home")
    assert list((tmp_path / "home").iterdir()) == []


def test_containers_take_the_place_of_missing_java(only: Path, tmp_path: Path) -> None:
    add(only, "docker", FAKE_DOCKER)
    assert missing_requirements(tmp_path / "home") == ""
    stack = LocalStack(tmp_path / "home")
    stack.start()
    assert stack.backend == "docker" and stack.running
    note = json.loads(stack.note_file.read_text())
    settings = Settings.load({"STREAMREC_HOME": str(stack.home)})
    assert settings.kafka_bootstrap == note["kafka"]["bootstrap"] == stack.kafka.address
    assert settings.redis_url == note["redis"]["url"]
    calls = (only / "calls").read_text()
    for server in (stack.kafka, stack.redis):
        assert f"PORT={server.port} compose --project-name streamrec-{server.name}-" in calls
    found = LocalStack(tmp_path / "home")
    assert found.running
    found.stop(wipe=True)
    assert not found.running and not found.note_file.exists()
    assert "down --volumes" in (only / "calls").read_text()


def test_the_broker_is_pinned() -> None:
    text = POM.read_text()
    assert "<kafka.version>4.1." in text and "LATEST" not in text and "SNAPSHOT" not in text and "RELEASE" not in text
    assert os.path.getsize(POM) < 4_000

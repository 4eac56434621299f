"""Java, and the broker's jars: resolved once by Maven from infra/kafka/pom.xml, then used offline.

Out: a folder of jars under the stack's home, named after the pom's content, so that another version is another folder.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from infra.stack.process import StackError

POM = Path(__file__).parent.parent / "kafka" / "pom.xml"
GOAL = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
OLDEST_JAVA = 17  # what Kafka 4 brokers need
MAVEN_DEADLINE_S = 900  # 43 MB over a slow line


def find_java() -> str | None:
    """The java command, if it is new enough for the broker."""
    java = shutil.which("java")
    if java is None:
        return None
    try:
        said = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = re.search(r'version "(\d+)', said.stderr + said.stdout)
    return java if version and int(version.group(1)) >= OLDEST_JAVA else None


def jars_folder(home: Path) -> Path:
    """Where the jars of this version lie, or will."""
    return home / f"kafka-{hashlib.sha256(POM.read_bytes()).hexdigest()[:12]}"


def resolve_jars(home: Path) -> Path:
    """The folder of jars, filled by Maven if it is not there yet; asks the network only for what Maven has not cached."""
    folder = jars_folder(home)
    if folder.is_dir():
        return folder
    maven = shutil.which("mvn")
    if maven is None:
        raise StackError("Maven (mvn) is not on the PATH, it fetches Apache Kafka's jars once; install it "
                         "(Debian, Ubuntu: apt install maven; macOS: brew install maven), then try again")
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home, prefix="jars-") as scratch:
        target = Path(scratch) / "jars"
        command = [maven, "-B", "-q", "-f", str(POM), GOAL, f"-DoutputDirectory={target}", "-DincludeScope=runtime"]
        said = ""
        for mode in (["-o"], []):  # the cache first: the second time needs no network
            try:
                done = subprocess.run([*command, *mode], capture_output=True, text=True, timeout=MAVEN_DEADLINE_S)
            except subprocess.TimeoutExpired:
                raise StackError(f"Maven did not finish within {MAVEN_DEADLINE_S} s; look at the network, then try again") from None
            if done.returncode == 0:
                break
            said = next((line for line in (done.stdout + done.stderr).splitlines() if "ERROR" in line), "nothing was said")
        else:
            raise StackError(f"Maven cannot fetch Apache Kafka's jars ({said.strip()[:300]}); it needs the network this once")
        try:
            target.rename(folder)  # at once, so that a half-filled folder is never taken for the jars
        except OSError:
            if not folder.is_dir():  # otherwise somebody else was faster
                raise
    return folder

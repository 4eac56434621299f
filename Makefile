# streamrec: `make demo` shows it, `make test` tests it; both prepare everything they need. `make help` lists the rest.
# A stamp file in .venv notes each finished step, so that the second time is instant and needs no network.

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
# the first interpreter that is new enough; `make PYTHON=...` chooses another
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo $$python; break; fi; done)
EXTRAS := dev,demo,stack,parquet,backtest,baselines
# LIGHT=1 does without the trainer, whose torch is gigabytes: demo and tests leave out what needs it
LIGHT ?=
TRAIN := $(if $(filter-out 0 no false,$(LIGHT)),,$(VENV)/.ready-train)
KEEP ?=
# what must be typed strictly: algorithms, and all that absorbs, refreshes and publishes
TYPED := models streams infra consumers/event_log consumers/trainer consumers/backup consumers/replay

.PHONY: help setup check test demo bench benchmark-quality lint lock clean

help:
	@echo "make demo [KEEP=1] [LIGHT=1]  set up, then stream real purchases through real Kafka into real Redis (KEEP=1: leave it up)"
	@echo "make test           set up, then run every test, those on live servers included"
	@echo "make setup          prepare .venv and the local stack's files, nothing else"
	@echo "make bench          set up, then run every benchmark"
	@echo "make benchmark-quality DATA=FOLDER  set up, then judge the lists against all baselines (hours), and write docs/quality.md"
	@echo "make lint           check types"
	@echo "make lock           choose versions anew and write both lock files"
	@echo "make clean          remove what setup made (the local stack's data too)"

setup: $(VENV)/.ready-stack $(TRAIN)

check:
	@if [ -z "$(PYTHON)" ]; then echo "setup: Python 3.11 or newer is not on the PATH; install it (Debian, Ubuntu: apt install python3 python3-venv; macOS: brew install python), then try again" >&2; exit 1; fi
	@if ! { command -v java && { command -v mvn || ls -d .streamrec/kafka-*; }; } >/dev/null 2>&1 && ! command -v docker >/dev/null 2>&1; then \
		echo "setup: Java 17 and Maven are not both on the PATH, and there is no Docker to take their place; install Java and Maven (Debian, Ubuntu: apt install default-jre-headless maven; macOS: brew install openjdk maven) or Docker, then try again" >&2; exit 1; fi

# hashes in the lock: what is installed is what was tested, wherever it is fetched from
$(VENV)/.ready-packages: requirements.lock | check
	@echo "setup: packages into $(VENV)"
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV) || { rm -rf $(VENV); echo "setup: $(PYTHON) cannot make a virtual environment; install its venv module (Debian, Ubuntu: apt install python3-venv), then try again" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	@touch $@

$(VENV)/.ready-train: requirements-train.lock $(VENV)/.ready-packages
	@echo "setup: torch for the trainer, some gigabytes (LIGHT=1 does without)"
	@$(BIN)/python -m pip install --disable-pip-version-check --require-hashes --requirement requirements-train.lock
	@touch $@

# the build back end is in the lock, so this asks no network
$(VENV)/.ready-streamrec: $(VENV)/.ready-packages pyproject.toml
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable ".[$(EXTRAS)]"
	@echo "setup: compiling the inner loops"
	@$(BIN)/python -m streams.warm
	@touch $@

$(VENV)/.ready-stack: $(VENV)/.ready-streamrec infra/kafka/pom.xml
	@echo "setup: Apache Kafka for the local stack"
	@$(BIN)/python -m infra.stack
	@touch $@

test: setup
	$(BIN)/python -m pytest -q

demo: setup
	$(BIN)/streamrec demo $(if $(filter-out 0 no false,$(KEEP)),--keep) $(if $(TRAIN),,--light)

bench: setup
	$(BIN)/streamrec bench all

# FOLDER holds the data sets; completejourney is a package and needs none
DATA ?=
benchmark-quality: setup
	$(BIN)/python -m benchmarks.quality run all $(if $(DATA),--data "$(DATA)")
	$(BIN)/python -m benchmarks.quality render

lint: setup
	$(BIN)/mypy $(TYPED)

# uv resolves for all platforms at once; the options keep addresses of package hosts out of the files. The worker's lock is
# the part of the whole one that a container needs, so both hold the same versions.
COMPILE := $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate --no-emit-index-url --python-version 3.11
lock: $(VENV)/.ready-packages
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.9,<1"
	$(COMPILE) --upgrade $(foreach extra,dev demo stack parquet backtest baselines,--extra $(extra)) pyproject.toml --output-file requirements.lock
	$(COMPILE) --upgrade --constraint requirements.lock --extra train pyproject.toml --output-file requirements-train.lock
	$(COMPILE) --upgrade --constraint requirements.lock pyproject.toml --output-file requirements-worker.lock

clean:
	@if [ -f .streamrec/stack.json ] && [ -x $(BIN)/streamrec ]; then $(BIN)/streamrec down; fi
	rm -rf $(VENV) .streamrec build *.egg-info

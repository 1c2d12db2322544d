# Every target sets up what it needs first: on a machine with Python 3.11 or newer, `make quickstart` and
# `make test` work right after a clone.   make test PYTHON=python3.12   picks the interpreter.

PYTHON ?= python3
VENV ?= .venv
PEERS_VENV ?= .venv-peers
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PEERS_STAMP := $(PEERS_VENV)/.installed
PYTEST_ARGS ?=
# Tests wait for other processes most of the time, so two at once take little more than half as long. Each process has a
# runtime and folders of its own. PYTEST_ARGS=-n0 runs them one by one, which --pdb needs.
PYTEST_WORKERS ?= 2
BENCH_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install quickstart test lint format bench docs clean

help:  ## Show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(STAMP)  ## Create the environment in .venv

quickstart: $(STAMP)  ## Set up, then run a grid search on the joblib backend and tell what it did
	$(BIN)/mltoolkit quickstart

test: $(STAMP)  ## Run the test suite
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist worksteal $(PYTEST_ARGS)

lint: $(STAMP)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)  ## Let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP) $(PEERS_STAMP)  ## Time mltoolkit and its peers side by side
	$(BIN)/python -m benchmarks --peers-python $(PEERS_VENV)/bin/python $(BENCH_ARGS)

docs: $(STAMP)  ## Build the documentation into docs/_build/html; warnings are errors
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

clean:  ## Remove environments, caches and build output
	rm -rf $(VENV) $(PEERS_VENV) build dist docs/_build docs/api/_generated .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is older than pyproject.toml or constraints.txt exactly when the environment is out of date.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "mltoolkit needs Python 3.11 or newer; $(PYTHON) is older or missing. Try: make PYTHON=python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || $(PYTHON) -m virtualenv $(VENV) || \
		{ echo "cannot create $(VENV): install Python's venv module (Debian: apt-get install python3-venv)" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

# What mltoolkit is measured against lives in an environment of its own: none of it is a dependency.
$(PEERS_STAMP): benchmarks/peers.txt
	@test -x $(PEERS_VENV)/bin/python || $(PYTHON) -m venv $(PEERS_VENV) || $(PYTHON) -m virtualenv $(PEERS_VENV)
	$(PEERS_VENV)/bin/python -m pip install --quiet --requirement benchmarks/peers.txt
	@touch $@

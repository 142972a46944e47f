# One target, one purpose. Everything a target needs it does first, so each works on a fresh checkout.
# What it takes: Python 3.11 or newer, make, git. pip's own settings (index, cache, proxy) apply as always.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
CONSTRAINTS ?= constraints.txt

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore

.PHONY: help setup demo lint test bench soak constraints clean

help:
	@echo "make setup        the virtual environment, with the versions proven together"
	@echo "make demo         a whole trading session, simulated"
	@echo "make test         lint, then every test"
	@echo "make lint         ruff, mypy, import contracts"
	@echo "make bench        the benchmarks"
	@echo "make soak         10,000 simulated weeks, for a night: SEEDS=0:500 for fewer, WORKERS=8 for more cores"
	@echo "make constraints  resolve all versions afresh and write constraints.txt"
	@echo "make clean        remove what make made; var/, your data, stays"

setup: $(INSTALLED)

# The stamp is younger than what it was installed from, or the install is done again. It is written last: an
# interrupted installation is repeated.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "onepath needs Python 3.11 or newer: make PYTHON=python3.11 $(MAKECMDGOALS)")'
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: setup
	$(BIN)/onepath demo

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Benchmarks measure and are not part of the proof: a busy machine must not turn it red.
test: lint
	$(BIN)/pytest --ignore=tests/benchmarks

bench: setup
	@if compgen -G 'tests/benchmarks/test_*.py' > /dev/null; \
	then $(BIN)/pytest -s tests/benchmarks; \
	else echo "no benchmarks yet"; fi

SEEDS ?= 0:10000
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(min(os.cpu_count() or 1, 64))')
soak: setup
	$(BIN)/onepath simulate --seeds $(SEEDS) --workers $(WORKERS)

# Resolved in an environment of its own, held only by the bounds in pyproject.toml. torch's "+cpu" goes: the same
# version is the default build on some indexes.
constraints:
	@set -e; scratch=$$(mktemp -d); trap 'rm -rf "$$scratch"' EXIT; \
	$(PYTHON) -m venv "$$scratch/venv"; \
	"$$scratch/venv/bin/pip" install --quiet '.[dev]'; \
	"$$scratch/venv/bin/pip" freeze --exclude onepath | sed 's/+cpu$$//' > "$$scratch/constraints.txt"; \
	cp "$$scratch/constraints.txt" $(CONSTRAINTS)
	@echo "$(CONSTRAINTS) is new: make test proves it"

clean:
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage
	find . -name __pycache__ -type d -not -path './var/*' -prune -exec rm -rf {} +

# `make run` shows it, `make test` proves it; each sets up all it needs.
.DEFAULT_GOAL := help
.PHONY: help run test coverage check bench natlab clean
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
# Twice as many as there are cores: tests use a processor for a third of their time, and wait for other processes.
WORKERS := $(shell echo $$(($$(getconf _NPROCESSORS_ONLN) * 2)))
PYTEST := $(BIN)/pytest --numprocesses=$(WORKERS) --dist=worksteal
PYTEST_ARGS ?=
# Without bytecode that is kept each of the workers compiles every test anew: half of what a start takes.
unexport PYTHONDONTWRITEBYTECODE
# Of each topology of the NAT lab.
TRIES ?= 10

help: ## this list
	@sed -nE 's/^([a-z]+):.*## (.*)/make \1\t\2/p' Makefile | expand -t 14

run: $(VENV)/.installed ## the console, with every system running on loopback and real traffic through each
	$(BIN)/tunnelconsole --demo

test: $(VENV)/.installed-test ## everything that must hold: the checks, then all tests (PYTEST_ARGS="-k jump" narrows them)
	@tools/system-tools
	@$(MAKE) --no-print-directory check
	$(PYTEST) $(PYTEST_ARGS)

coverage: $(VENV)/.installed-test ## all tests, and which lines none of them reaches, in half as much time again
	$(PYTEST) --cov --cov-report=term $(PYTEST_ARGS)

check: $(VENV)/.installed-test ## style, types, and who imports whom
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.installed ## measures side by side with the peers that are installed, into docs/benchmarks.md (QUICK=1: a short look; ONLY="jump;ssh -R": these)
	$(BIN)/python -m bench $(if $(QUICK),--quick) $(if $(ONLY),--only "$(ONLY)")

natlab: $(VENV)/.installed-test ## hole punching through every kind of NAT, TRIES=10 times each, into docs/natlab.md (as root)
	$(BIN)/pytest tests/natlab --natlab-tries=$(TRIES) --natlab-report=docs/natlab.md --timeout=0 $(PYTEST_ARGS)

clean: ## removes everything that was made
	rm -rf $(VENV) build dist bench/build .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find tunnelconsole tests bench -name __pycache__ -prune -exec rm -rf {} +

# Installed in place, so that a change to the sources needs no second install; a change to pyproject.toml does.
$(VENV)/.installed: pyproject.toml | $(VENV)/pyvenv.cfg
	$(PIP) install --editable .
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(VENV)/pyvenv.cfg
	$(PIP) install --editable '.[test]'
	@touch $@ $(VENV)/.installed

$(VENV)/pyvenv.cfg:
	tools/venv $(VENV)

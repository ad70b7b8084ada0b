# Everything happens in .venv, made on first use. `make` alone explains.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: help demo test ui lint clean
help:
	@echo "make demo   train, analyse and report experiments/induction.yaml (about 5 minutes on 2 cores)"
	@echo "make test   linter, types and all tests"
	@echo "make ui     Dagster's web UI on http://127.0.0.1:3000, on the same data"
	@echo "make clean  remove .venv and caches; the store and Dagster's history stay"

# PyTorch first and alone: its pin must decide the build before anything else asks for "some torch".
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(STAMP)
	@$(BIN)/mech run experiments/induction.yaml

test: lint
	$(BIN)/python -m pytest

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# A shell in the background hands SIGINT to Dagster as "ignored"; resetting it lets Ctrl-C and kill work.
ui: $(STAMP)
	env --default-signal=INT $(BIN)/dagster dev --module-name mech_pipeline.definitions --host 127.0.0.1 --port 3000

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache

# Everything happens in .venv, made on first use. `make` alone explains.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
BROWSE := .venv-browse
OLDEST_DUCKDB := 1.5.5

# Python keeps what it has compiled: else each of the hundred processes that tests start compiles everything again.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help demo check test ui style lint browse clean
help:
	@echo "make demo   train, analyse and report experiments/induction.yaml (about 4 minutes on 2 cores)"
	@echo "make check  linter, types, doctests and the tests that start no other process (some 5 minutes on 2 cores)"
	@echo "make test   linter, types and all tests (some 25 minutes on 2 cores)"
	@echo "make ui     Dagster's web UI on http://127.0.0.1:3000, on the same data"
	@echo "make browse DuckDB's command line, harlequin and marimo, to look into the store (docs/sql.md)"
	@echo "make clean  remove the virtual environments and caches; the store and Dagster's history stay"

# PyTorch first and alone: its pin must decide the build before anything else asks for "some torch".
# The oldest DuckDB that is promised lies aside, for the tests: pyproject.toml and tests/store/test_duckdb_versions.py name it too.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade --no-deps --target $(VENV)/duckdb-$(OLDEST_DUCKDB) duckdb==$(OLDEST_DUCKDB)
	@touch $@

demo: $(STAMP)
	@$(BIN)/mech run experiments/induction.yaml

# Slow files begin first (tests/support/order.py), each in one process: its tests share what they made.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder --durations=20

# mypy runs beside the tests, as it needs one core alone; what it says comes after them.
beside_mypy = $(BIN)/mypy >.mypy.out 2>&1 & types=$$!; $(1); tests=$$?; \
	wait $$types; types=$$?; cat .mypy.out; rm -f .mypy.out; exit $$((tests | types))

check: style
	@$(call beside_mypy,$(PYTEST) -m "not process and not slow and not gpu")

# One process more than cores: tests of whole processes wait for a third of their time.
test: style
	@$(call beside_mypy,PYTEST_XDIST_AUTO_NUM_WORKERS=$$($(BIN)/python -c 'import os; print(os.cpu_count() + 1)') $(PYTEST))

style: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

lint: style
	$(BIN)/mypy

ui: $(STAMP)
	@$(BIN)/mech ui --port 3000 || test $$? -eq 130  # Ctrl-C is how it ends

# Apart from .venv, because harlequin pins other versions of shared packages; what it does not bring comes from .venv.
browse: $(BROWSE)/.installed
$(BROWSE)/.installed: $(STAMP)
	$(BIN)/python -m venv --clear $(BROWSE)
	$(BROWSE)/bin/python -c 'import sys, sysconfig; open(sysconfig.get_path("purelib") + "/main.pth", "w").write(f"import site; site.addsitedir({sys.argv[1]!r})\n")' "$$($(CURDIR)/$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
	$(BROWSE)/bin/python -m pip install --quiet --disable-pip-version-check duckdb-cli==1.5.6 harlequin==2.17.0 marimo==0.25.2
	@touch $@
	@echo "source $(BROWSE)/bin/activate, then: duckdb -readonly store/warehouse.duckdb"

clean:
	rm -rf $(VENV) $(BROWSE) build *.egg-info .pytest_cache .mypy_cache .ruff_cache

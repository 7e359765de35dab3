# All a new machine needs is python 3.11+, make and a package registry.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
SOURCE ?= auto
DEMO   ?=

.PHONY: help demo test test-system check install lock prove bench-pull bench-extract bench-push clean

help:            ## what can be made
	@sed -n 's/^\([a-z-]*\): .*## /\1	/p' $(MAKEFILE_LIST) | expand -t 12

demo: install    ## rehearse the whole job against a simulated Marketo (SOURCE=soap for another source, DEMO="--leads 5000 --faults" for options)
	@$(BIN)/syncd demo --source $(SOURCE) $(DEMO)

test: check      ## everything CI checks: lint, types, import contracts, tests
	$(BIN)/python -m pytest -n 2

check: install   ## lint, types and import contracts only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

test-system: install ## what needs a real systemd, Chromium or Prometheus; as root installs them where apt-get can, and says what it skips
	@sh tests/system/install.sh
	$(BIN)/python -m pytest -m system -n 0 -rs

prove: install   ## the heavy points of all issues, by name
	$(BIN)/python -m pytest -m prove -n 0 -s

bench-pull: install ## a pull beside zeep + psycopg, beside its own steps, and beside COPY
	@$(BIN)/python -m tests.benchmarks.pull

bench-extract: install ## a file of an extract beside the csv module and pages of upserts
	@$(BIN)/python -m tests.benchmarks.extract

bench-push: install ## pending changes into chunks and bodies beside psql and split, and the scheduler beside fixed-beat pollers
	@$(BIN)/python -m tests.benchmarks.push
	@$(BIN)/python -m tests.benchmarks.scheduler

install: $(STAMP) ## .venv with syncd in it, from the lock file with its hashes

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "syncd needs python 3.11 or newer; try: make PYTHON=python3.12" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV) || { echo "could not create $(VENV): install python's venv module" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

clean:           ## remove what was built
	rm -rf $(VENV) .mypy_cache .ruff_cache .import_linter_cache .hypothesis dist build

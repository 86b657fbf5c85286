# make setup   create .venv and install everything
# make test    lint, types, import contracts, migrations, every test, the hosts included
# make test-quick   the tests on SQLite that take no time, to run while working
# make test-hosts   the plugin on real helpdesks, and their own tests with it
# make demo    a working helpdesk with its model, in a browser near you
# make bench   the figures in docs/performance.md (presets.py and certified_tickets.py need a file of yours)

PYTHON ?= python3.11
PORT ?= 8000
BIN := .venv/bin
# The first starts with the slowest tests; each part's output comes whole, once it has ended.
PYTEST := $(BIN)/python -m pytest -q --dist loadgroup --no-loadscope-reorder
TOGETHER := $(MAKE) --no-print-directory -j 2 $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)
MANAGE := $(BIN)/python manage.py
STAMP := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help setup lint types contracts migrations unit databases host-environments test-hosts test test-quick demo bench clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

setup: $(STAMP)

$(STAMP): requirements.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { \
		echo "$(PYTHON) is not installed. Install Python 3.11, or name another: make PYTHON=python3.12 $(MAKECMDGOALS)"; \
		exit 1; }
	@echo "== Creating .venv and installing (a few minutes the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@# Without --no-compile pip compiles every file of torch, and the tests import a part.
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-compile -r requirements.txt
	@touch $@

lint: setup
	@echo "== Lint"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .

types: setup
	@echo "== Types"
	@$(BIN)/mypy

contracts: setup
	@echo "== Import contracts"
	@$(BIN)/lint-imports --no-cache --no-logo

migrations: setup
	@echo "== Migrations"
	@$(MANAGE) makemigrations --check --dry-run

unit: setup
	@echo "== Tests on SQLite"
	@$(PYTEST) -n 3

databases: setup
	@echo "== Tests on PostgreSQL and MariaDB"
	@$(BIN)/python tests/databases.py

host-environments:
	@echo "== Environments of the real helpdesks"
	@$(PYTHON) tests/hosts/run.py --prepare

test-hosts: setup
	@echo "== Tests on real helpdesks"
	@$(BIN)/python tests/hosts/run.py

test:
	@$(TOGETHER) setup host-environments
	@echo "== Every test, some minutes; each part's output comes as it ends"
	@$(TOGETHER) unit lint types contracts migrations test-hosts databases

test-quick: setup
	@$(PYTEST) -n 2 -m "not slow"

demo: setup
	@$(MANAGE) run_demo --port $(PORT)

bench: setup
	@for script in $(filter-out benchmarks/ablation.py benchmarks/presets.py benchmarks/certified_tickets.py benchmarks/outage_settings.py,$(wildcard benchmarks/*.py)); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean:
	rm -rf .venv .venv-hosts var outputs

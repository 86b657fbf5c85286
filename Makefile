# make setup   create .venv and install everything
# make test    lint, types, import contracts, migrations, every test, the hosts included
# make test-hosts   the plugin on real helpdesks, and their own tests with it
# make demo    a working helpdesk with its model, in a browser near you
# make bench   the figures in docs/performance.md (presets.py and certified_tickets.py need a file of yours)

PYTHON ?= python3.11
PORT ?= 8000
BIN := .venv/bin
MANAGE := $(BIN)/python manage.py
STAMP := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help setup lint types contracts migrations unit databases test-hosts test demo bench clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

setup: $(STAMP)

$(STAMP): requirements.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { \
		echo "$(PYTHON) is not installed. Install Python 3.11, or name another: make PYTHON=python3.12 $(MAKECMDGOALS)"; \
		exit 1; }
	@echo "== Creating .venv and installing (a few minutes the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
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
	@$(BIN)/python -m pytest -q -n 2 --dist load

databases: setup
	@echo "== Tests on PostgreSQL and MariaDB"
	@$(BIN)/python tests/databases.py

test-hosts: setup
	@echo "== Tests on real helpdesks"
	@$(BIN)/python tests/hosts/run.py

test: lint types contracts migrations unit databases test-hosts

demo: setup
	@$(MANAGE) run_demo --port $(PORT)

bench: setup
	@for script in $(filter-out benchmarks/ablation.py benchmarks/presets.py benchmarks/certified_tickets.py benchmarks/outage_settings.py,$(wildcard benchmarks/*.py)); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean:
	rm -rf .venv .venv-hosts var outputs

# Everything runs in a virtual environment of its own, made on first use.

PYTHON ?= python3
VENV ?= .venv
PORT ?= 8000
UV ?= uv
ARGS ?=

BIN := $(VENV)/bin
# Newer than requirements.txt: the environment holds what that file names.
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help run test soak screenshots check mutants requirements clean

help: ## Show this list
	@echo "make TARGET [PYTHON=python3] [PORT=8000] [ARGS='...']"
	@sed -n 's/^\([a-z]*\): .*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; \
	do printf '  %-14s %s\n' "$$name" "$$text"; done

run: $(READY) ## Serve the reference site on 127.0.0.1:PORT; the first time, print its password
	@$(BIN)/python manage.py demo --port $(PORT)
	@exec $(BIN)/python manage.py runserver 127.0.0.1:$(PORT) $(ARGS)

# In a process for each core, whole modules in each, and the longest ones first.
test: $(READY) ## Run the tests, in random order; ARGS go to pytest (-n 0: all in one process)
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

soak: $(READY) ## Faults 1,000 times each, writes for 60 s each way, 2,000 inputs of each kind (an hour)
	SITECONFIG_TEST_TRIALS=1000 SITECONFIG_TEST_STRESS=60 SITECONFIG_TEST_EXAMPLES=2000 \
		$(BIN)/python -m pytest -v tests/test_quiet.py tests/test_history.py tests/test_input.py $(ARGS)

screenshots: $(READY) ## Take the pictures in docs/images anew
	SITECONFIG_SCREENSHOTS=1 $(BIN)/python -m pytest tests/test_pictures.py $(ARGS)

check: $(READY) ## Check style, types, imports and migrations
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy siteconfig project tests
	$(BIN)/lint-imports
	SITECONFIG_DEMO_DB=:memory: $(BIN)/python manage.py makemigrations --check --dry-run

mutants: $(READY) ## Put faults into copies of the code; the suite must find each (30 minutes)
	$(BIN)/python -m tests.mutants $(ARGS)

requirements: ## Pin requirements.txt anew from pyproject.toml with uv; ARGS=--upgrade: to the newest
	$(UV) pip compile --quiet --universal --python-version 3.11 --group dev --no-emit-index-url \
		--custom-compile-command "make requirements" --output-file requirements.txt $(ARGS) pyproject.toml

clean: ## Remove the environment and all caches; the site's database, keys and log stay
	rm -rf $(VENV) build dist .coverage htmlcov .hypothesis
	rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "This needs Python 3.11 or newer, and '$(PYTHON)' is: $$($(PYTHON) --version 2>&1)" >&2; \
		echo "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Installing requirements.txt into $(VENV)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --requirement requirements.txt
	@touch $@

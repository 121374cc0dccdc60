# Everything starts here, from a bare checkout with nothing but Python >= 3.11 and make.
# `make PYTHON=/path/to/python` chooses another Python, `make test ARGS="-k settings"` passes arguments on.

RIGHT_PYTHON = import sys, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3; do \
	"$$python" -c '$(RIGHT_PYTHON)' >/dev/null 2>&1 && echo "$$python" && break; done)
BIN = .venv/bin
ARGS =

.DEFAULT_GOAL = help
.PHONY: help demo test check bench soak lock docs clean
.DELETE_ON_ERROR:

help: ## these lines
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile

demo: .venv/installed ## a carrier, two enterprises and live usage, until Ctrl-C
	$(BIN)/allotment demo $(ARGS)

test: .venv/installed ## the tests, with real PostgreSQL and NATS
	$(BIN)/python -m pytest -n 2 $(ARGS)

check: .venv/installed ## what CI runs: style, types, import rules, tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=.src $(BIN)/lint-imports
	$(BIN)/python -m pytest -n 2 $(ARGS)

bench: .venv/installed ## how fast charging is, beside its baseline; and reading while usage flows
	$(BIN)/allotment bench charge $(ARGS)
	$(BIN)/allotment bench reading
	$(BIN)/allotment bench intake

soak: .venv/installed ## the tests that take minutes on purpose
	$(BIN)/python -m pytest -m soak --timeout 3600 $(ARGS)

lock: .venv/installed ## pin every dependency anew (LOCK_ARGS="--upgrade" for the newest)
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --extra dev --generate-hashes \
		--no-emit-index-url --no-annotate --no-header --quiet $(LOCK_ARGS) --output-file requirements.lock

docs: .venv/installed ## renew the files that are printed from the code
	$(BIN)/python -m allotment.backend.documents

clean: ## back to a bare checkout
	rm -rf .venv allotment.egg-info build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -f backend/native/*.so

# Done again whenever a pinned version, the list of packages or native code changes.
.venv/installed: requirements.lock pyproject.toml $(wildcard backend/native/*.[ch])
	@test -n "$(PYTHON)" && "$(PYTHON)" -c '$(RIGHT_PYTHON)' || { \
		echo "Allotment needs Python 3.11 or later, with its venv module (on Debian: python3-venv)." >&2; \
		echo "Install it, or name yours: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(BIN)/python -c '$(RIGHT_PYTHON)' 2>/dev/null || "$(PYTHON)" -m venv --clear .venv
	@echo "Installing into .venv, once ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

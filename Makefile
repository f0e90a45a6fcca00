# make demo: set up and certify 20 photographs.   make test: set up and run the tests.
# make check: lint, format and types.             make format: let ruff write.

PYTHON := $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.PHONY: demo test check format

demo: .venv/installed
	$(BIN)/smoothcert demo

test: .venv/installed check
	$(BIN)/python -m pytest -m "not slow"

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo,dev,train]'
	touch $@

# make demo: set up and certify 20 photographs.   make test: set up and run the tests.
# make check: lint, format, types and imports.    make format: let ruff rewrite the code.
# make docs:  write docs/reference/ from the code, and tables from the runs in runs/; RUNS=FOLDER names another folder.

PYTHON := $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
RUNS ?= runs

.PHONY: demo test check format docs

demo: .venv/installed
	$(BIN)/smoothcert demo

# Two processes: much of the time a test waits for Ray to start. A file stays in one process, with its fixtures.
test: .venv/installed check
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/installed
	$(BIN)/python -m scripts.reference
	$(BIN)/python -m scripts.docs $(RUNS)

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo,dev,train]'
	touch $@

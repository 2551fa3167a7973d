# Words to remember: demo, test, release, check, quick, docs. Each sets up what it needs: a virtual environment in .venv, pinned.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test release quick check docs format clean

demo: .venv/ready
	$(BIN)/cuescope demo

test: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

release: .venv/ready # what `make test` leaves out, before a release
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder -m release

quick: .venv/ready
	$(BIN)/pytest -m "not slow and not release and not tools"

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/ready
	$(BIN)/python docs/generate.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

format: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[dev]'
	touch .venv/ready

clean:
	rm -rf .venv audits .cuescope

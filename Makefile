# Every target creates .venv and installs what it needs; remove .venv to start again.
PYTHON ?= python3
BIN := .venv/bin
IMAGES ?=

.PHONY: demo app lint format test test-slow

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable .
	@touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/pip install --quiet --editable ".[dev]"
	@touch $@

demo: .venv/installed  ## caption a photograph; make demo IMAGES="a.jpg folder" takes your own
	@$(BIN)/python -m captioner demo $(IMAGES)

app: .venv/installed  ## the web page
	$(BIN)/streamlit run app.py

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: .venv/installed-dev  ## the fast tests
	$(BIN)/pytest -m "not slow"

test-slow: .venv/installed-dev  ## the rest
	$(BIN)/pytest -m slow

# `make app` starts the dashboard, `make test` runs every test; both make the virtual environment first if it is missing.
PYTHON ?= python3
VENV   ?= .venv
PORT   ?= 8501

BIN        := $(VENV)/bin
APP_STAMP  := $(VENV)/.installed-app
TEST_STAMP := $(VENV)/.installed-test
CUT_OFF    := $(VENV)/.install-unfinished

.DEFAULT_GOAL := help
.PHONY: help app demo test check lint bench

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-7s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

app: $(APP_STAMP)  ## install what is missing and start the dashboard on 127.0.0.1 (PORT=8501)
	@exec $(BIN)/python -m streamlit run app.py --server.address 127.0.0.1 --server.port $(PORT) --server.headless true

demo: $(APP_STAMP)  ## show six recorded runs, read-only, with a story in five steps (PORT=8501)
	@exec $(BIN)/python -m robustft demo --port $(PORT)

test: $(TEST_STAMP)  ## run every test
	@$(BIN)/python -m pytest

lint: $(TEST_STAMP)  ## check format, lint and types
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m mypy robustft

check: lint test  ## lint, then test

bench: $(APP_STAMP)  ## time the slow steps on this machine
	@$(BIN)/python -m robustft bench

# An install that was cut off leaves its mark, and starts over in an empty venv: half a package can look whole to pip.
# (pip's own cache keeps the downloads.) A folder that is no venv is never cleared.
$(APP_STAMP): requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
	  echo "robustft needs Python 3.10 or newer, but $(PYTHON) is: $$($(PYTHON) --version 2>&1)" >&2; \
	  echo "Name another one: make $(firstword $(MAKECMDGOALS)) PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments. On Debian or Ubuntu: sudo apt install python3-venv" >&2; exit 1; }
	@if [ -e "$(CUT_OFF)" ] || ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  if [ -e "$(VENV)/pyvenv.cfg" ]; then clear=--clear; else clear=; fi; \
	  echo "Making $(VENV); installing takes some minutes and some GB, once."; \
	  $(PYTHON) -m venv $$clear "$(VENV)"; \
	fi
	@touch "$(CUT_OFF)"
	@$(BIN)/python -m pip install --disable-pip-version-check -r requirements.txt
	@rm "$(CUT_OFF)"
	@touch $@

$(TEST_STAMP): tests/requirements.txt $(APP_STAMP)
	@touch "$(CUT_OFF)"
	@$(BIN)/python -m pip install --disable-pip-version-check -r tests/requirements.txt
	@rm "$(CUT_OFF)"
	@touch $@

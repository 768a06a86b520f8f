# Every target builds what it needs by itself, in .venv; a second run starts at once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test check golden bench nightly clean
.DEFAULT_GOAL := help

help: ## List the targets.
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(VENV)/.demo ## Run the main job, end to end, on this machine.
	@$(BIN)/planner demo

test: $(VENV)/.dev ## Run the tests.
	@$(BIN)/python -m pytest

check: $(VENV)/.dev ## Check format, style, types and the direction of imports.
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

golden: $(VENV)/.dev ## Write the files that tests compare with.
	@$(BIN)/python -m tests.golden

bench: $(VENV)/.dev ## Print measured ratios: speed against the alternatives, and errors against measurements.
	@OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks

nightly: $(VENV)/.dev ## Run the long tests, too: large models, long runs.
	@HYPOTHESIS_PROFILE=searching $(BIN)/python -m pytest -m "nightly or not nightly" --timeout 1800

clean: ## Remove the environment and all that runs wrote.
	rm -rf $(VENV) runs .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "planner needs Python 3.10 or later; say PYTHON=python3.12, for example"; exit 2; }
	@echo "creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	@echo "installing what planner needs into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[all]"
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	@echo "installing what planner and its tests need into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[all,dev]"
	@# Carries three more real models for tests. Its dependencies are large and not needed; without it they are skipped.
	-@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps "rapidocr-onnxruntime==1.4.4"
	@touch $@ $(VENV)/.demo

# Every target creates the environment that it needs on first use; later runs start immediately.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements.lock
# The second variable makes newer versions of pip apply the lock to build dependencies, too; older ones need only the first.
INSTALL = PIP_CONSTRAINT=$(LOCK) PIP_BUILD_CONSTRAINT=$(LOCK) \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check
LOCKER := .venv-lock
AUDITOR := .venv-audit
SBOM := dist/sbom.cdx.json
# Bytecode is kept: tests start some hundred processes, each of which would compile the modules that it imports.
unexport PYTHONDONTWRITEBYTECODE
# Tests beside each other: three processes for two processors, since those with agents wait for half of their time.
BESIDE := -n 3 --dist loadfile --no-loadscope-reorder
ALONE = $(shell grep -rl "pytest.mark.alone" tests --include "test_*.py" | sort)
COMPILE = $(LOCKER)/bin/uv pip compile pyproject.toml --quiet --upgrade --all-extras --group build --group models \
	--custom-compile-command "make lock" --no-emit-index-url --no-emit-find-links

.PHONY: help demo test test-fast test-newest test-oldest test-wheel test-aarch64 dist compiled check docs fuzz lock audit sbom golden bench bench-solve campaign nightly clean
.DEFAULT_GOAL := help

help: ## List the targets.
	@grep -E '^[a-z0-9.%-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(VENV)/.demo ## Run the whole workflow on this machine.
	@$(BIN)/planner demo

test: $(VENV)/.dev ## Run the tests.
	@$(BIN)/python -m pytest $(BESIDE) -m "not alone and not nightly"
	@# What compares times needs the whole machine.
	@$(BIN)/python -m pytest -m "alone and not nightly" $(ALONE)

test-fast: $(VENV)/.dev ## Run the tests that start no processes and need no long searches.
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m "not agents and not slow and not nightly"

test-3.%: ## Run the tests on another version of Python, such as `make test-3.10`.
	@python=$$(.ci/find-python 3.$*) && $(MAKE) test PYTHON="$$python" VENV=.venv-3.$*

test-newest: ## Run the tests with the newest versions of all dependencies.
	@rm -rf .venv-newest
	@$(MAKE) test VENV=.venv-newest LOCK=

test-oldest: $(LOCKER)/bin/uv ## Run the tests with the lowest versions that pyproject.toml allows.
	@$(COMPILE) --resolution lowest-direct --only-binary :all: --python "$$(command -v $(PYTHON))" \
		--output-file $(LOCKER)/oldest.lock > /dev/null
	@$(MAKE) test VENV=.venv-oldest LOCK=$(LOCKER)/oldest.lock

test-wheel: $(LOCKER)/bin/uv dist ## Run the tests on the built wheel, without the checkout's package.
	@rm -rf build/wheel .venv-wheel && mkdir -p build/wheel
	@tar -xzf dist/*.tar.gz -C build/wheel --strip-components 1 && rm -r build/wheel/planner
	@$(PYTHON) -m venv .venv-wheel
	@wheel=$$(ls dist/*.whl) && PIP_CONSTRAINT=$(LOCK) .venv-wheel/bin/python -m pip install --quiet "$$wheel[all,dev]"
	@cd build/wheel && ../../.venv-wheel/bin/python -m pytest $(BESIDE) -m "not alone and not nightly"
	@cd build/wheel && ../../.venv-wheel/bin/python -m pytest -m "alone and not nightly" $(ALONE)
	@# What an agent needs has wheels for the oldest Python on the other architecture.
	@echo "mdi-planner[cpu] @ file://$$(ls $(CURDIR)/dist/*.whl)" | $(LOCKER)/bin/uv pip compile - --quiet --no-header \
		--no-annotate --python-platform aarch64-manylinux_2_28 --python-version 3.10 --only-binary :all:

test-aarch64: $(LOCKER)/bin/uv dist ## Run all policies on an aarch64 agent, under qemu-user; needs Debian and the network.
	@$(BIN)/python -m tests.aarch64 dist/*.whl --uv $(LOCKER)/bin/uv $(if $(AARCH64_PYTHON),--python $(AARCH64_PYTHON))

dist: $(VENV)/.dev ## Build the wheel and the source distribution in dist/, and check them.
	@rm -rf dist
	@PIP_CONSTRAINT=$(LOCK) $(BIN)/python -m build --outdir dist . > /dev/null
	@$(BIN)/twine check --strict dist/*

compiled: $(VENV)/.dev ## Build a wheel in dist/ whose simulator, workers and policies are compiled; needs a C compiler.
	@PLANNER_COMPILE=1 PIP_CONSTRAINT=$(LOCK) $(BIN)/python -m build --wheel --outdir dist . > /dev/null

check: $(VENV)/.dev ## Check format, style, types and import order.
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@# Each folder of examples has modules of the same names. A notebook is not annotated.
	@for folder in $(filter-out examples/notebook/,$(sort $(dir $(wildcard examples/*/*.py)))); do $(BIN)/mypy "$$folder" || exit; done
	@$(BIN)/lint-imports --no-cache

docs: $(VENV)/.dev ## Build the documentation in site/; warnings are errors.
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

fuzz: $(VENV)/.dev ## Run 100,000 malformed inputs; CASES=1000 fewer, TARGETS=plan of one reader, SEED=1 the same again.
	@$(BIN)/python -m tests.fuzz $(TARGETS) --cases $(or $(CASES),100000) $(if $(SEED),--seed $(SEED))

lock: $(LOCKER)/bin/uv ## Lock the newest versions of all dependencies, for every supported Python.
	@$(COMPILE) --universal --python-version 3.10 --output-file $(LOCK) > /dev/null
	@# What JetPack 6 can have, for `make test-aarch64`; qemu-user 7.2 starts no onnxruntime from 1.27 on.
	@echo "onnxruntime==1.23.2" | $(LOCKER)/bin/uv pip compile - pyproject.toml --extra cpu --quiet --upgrade --universal \
		--python-version 3.10 --generate-hashes --no-annotate --custom-compile-command "make lock" --no-emit-index-url \
		--no-emit-find-links --output-file tests/aarch64/requirements.txt > /dev/null

audit: $(AUDITOR)/bin/pip-audit ## Check the locked versions for published vulnerabilities; needs the network.
	@# Strict, so that a version that cannot be looked up is no clean one.
	@$(AUDITOR)/bin/pip-audit --requirement $(LOCK) --no-deps --disable-pip --strict --progress-spinner off

sbom: $(AUDITOR)/bin/pip-audit ## Write the software bill of materials of a release from the lock, in CycloneDX format.
	@mkdir -p $(dir $(SBOM))
	@$(AUDITOR)/bin/python -W ignore -m cyclonedx_py requirements $(LOCK) --pyproject pyproject.toml --mc-type application \
		--output-reproducible --output-format JSON --output-file $(SBOM)
	@echo "wrote $(SBOM)"

golden: $(VENV)/.dev ## Regenerate the files that tests compare with.
	@$(BIN)/python -m tests.golden

bench: $(VENV)/.dev ## Print measured ratios: speed against alternatives, and prediction errors.
	@OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks

bench-solve: $(VENV)/.dev ## Measure solvers on public instances and keep the results; CHECK=1 compares with those kept.
	@OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.solve $(if $(CHECK),--check)

campaign: $(VENV)/.dev ## Run 10,000 random runs under faults and explore the protocol; DASK=tcp://HOST:PORT uses a cluster.
	@$(BIN)/python -m tests.campaign $(if $(DASK),--dask $(DASK),--processes 2)
	@$(BIN)/python -m tests.protocol

nightly: $(VENV)/.dev ## Run all tests, including large models and long runs.
	@HYPOTHESIS_PROFILE=searching $(BIN)/python -m pytest -m "nightly or not nightly" --timeout 1800

clean: ## Remove the environments, the caches and runs/.
	rm -rf .venv .venv-* build dist site runs .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "planner needs Python 3.10 or later; choose one with PYTHON=python3.12, for example"; exit 2; }
	@echo "creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml $(LOCK) | $(VENV)/bin/python
	@echo "installing planner and its dependencies into $(VENV)"
	@$(INSTALL) --editable ".[all]"
	@touch $@

$(VENV)/.dev: pyproject.toml $(LOCK) | $(VENV)/bin/python
	@echo "installing planner and the dependencies of its tests into $(VENV)"
	@$(INSTALL) --editable ".[all,dev]"
	@# Contains three more real models for tests, which are skipped without it. Its dependencies are large and not needed.
	-@$(INSTALL) --no-deps 'rapidocr-onnxruntime; python_version < "3.13"'
	@touch $@ $(VENV)/.demo

$(LOCKER)/bin/uv:
	@$(PYTHON) -m venv $(LOCKER)
	@$(LOCKER)/bin/python -m pip install --quiet --disable-pip-version-check uv

$(AUDITOR)/bin/pip-audit:
	@$(PYTHON) -m venv $(AUDITOR)
	@$(AUDITOR)/bin/python -m pip install --quiet --disable-pip-version-check pip-audit cyclonedx-bom

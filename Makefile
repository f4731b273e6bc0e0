# Everything a user or CI runs; each target first makes sure that .venv is complete.

# The first of these that runs and is 3.11: a version manager's python3.11 can exist and still refuse to run.
ifndef PYTHON
PYTHON := $(shell for p in python3.11 python3 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' >/dev/null 2>&1 && { echo "$$p"; break; }; done)
endif

BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow test-faults test-gpu test-fast bench fuzz lint format types wheel lock clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup:  ## make .venv from requirements.lock; a second call installs nothing
	@found=$$("$(PYTHON)" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null); \
	[ "$$found" = 3.11 ] || { echo "Set-up stopped: Python 3.11 is needed, $(or $(PYTHON),python3.11) is $${found:-not there}." \
	"Install it, or name it: make setup PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" bootstrap.py

demo: setup  ## make posts, run every stage on them, say what came out and where to look
	@$(BIN)/smp demo

test: setup  ## every test but those of test-slow and test-faults
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder -m "not full and not fleet and not gpu"

test-slow: setup  ## full-size models, and environments built from requirements: minutes, and a network
	$(BIN)/python -m pytest -m full

test-faults: setup  ## drivers, executors and disks that fail in earnest
	$(BIN)/python -m pytest -m fleet

test-gpu: setup  ## what only a machine with a CUDA device can show
	$(BIN)/python -m pytest -m gpu

test-fast: setup  ## the tests that start no Spark and take seconds
	$(BIN)/python -m pytest -m "not spark and not slow and not full and not gpu"

bench: setup  ## measure, and write benchmarks/RESULTS.md (hours; BENCH=ceiling measures one part)
	$(BIN)/python -m benchmarks $(BENCH)

fuzz: setup  ## 20,000 damaged pictures, each of which must end with a status in time (FILES=n SEED=n)
	$(BIN)/python -m benchmarks.fuzz_images $(if $(FILES),--files $(FILES)) $(if $(SEED),--seed $(SEED))

lint: setup  ## style of the code, and the direction of its imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

format: setup  ## bring the code to that style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: setup  ## type annotations
	$(BIN)/mypy

wheel: setup  ## dist/*.whl, what the Databricks bundle ships
	$(BIN)/python -m build --wheel --no-isolation

lock: setup  ## requirements.lock again, after a change in setup.py (UPGRADE=name moves one package)
	$(BIN)/uv pip compile --quiet setup.py --extra local --extra test --universal --python-version 3.11 \
		$(if $(UPGRADE),--upgrade-package $(UPGRADE)) --custom-compile-command "make lock" --output-file requirements.lock

clean:  ## remove what builds and tools leave behind; .venv and demo results stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache spark-warehouse metastore_db derby.log

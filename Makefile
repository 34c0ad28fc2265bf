PYTHON ?= $(shell python3.11 -c 'import sys; print(sys.executable)' 2>/dev/null || echo python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-lowest test-slow lint bench bench-auto bench-bbob \
	bench-finetune bench-functions bench-heap bench-memory bench-repeat bench-smoke bench-step clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(VENV)/dev.stamp ## make .venv with everything for development in it

demo: $(VENV)/demo.stamp ## fetch a small model and film reviews, and tune one on the other
	$(BIN)/python examples/fetch.py
	$(BIN)/zoopt tune examples/reviews.yaml

test: lint ## lint, then run all tests but the slow ones
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2

test-slow: $(VENV)/dev.stamp ## run the slow tests
	$(BIN)/pytest -m slow

test-lowest: $(VENV)/lowest.stamp ## run what meets transformers with the lowest version that is supported
	OMP_NUM_THREADS=1 PYTHONPATH=$(VENV)/lowest $(BIN)/pytest -n 2 tests/engines tests/examples \
		tests/integrations tests/tasks tests/tuning

lint: $(VENV)/dev.stamp ## check style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench-step: $(VENV)/bench.stamp ## time a tuning step against forward passes and its rivals
	$(BIN)/python examples/fetch.py
	$(BIN)/python -m benchmarks.step_cost.run

bench-heap: $(VENV)/bench.stamp ## time steps with and without memory that is kept
	$(BIN)/python examples/fetch.py
	$(BIN)/python -m benchmarks.step_cost.heap

bench-memory: $(VENV)/bench.stamp ## measure the memory of a tuning step against a forward pass
	$(BIN)/python examples/fetch.py
	$(BIN)/python -m benchmarks.memory.run

bench-functions: $(VENV)/bench.stamp ## compare optimizers on functions and small models, an hour
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.functions.run
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.functions.rank
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.functions.cost

bench-bbob: $(VENV)/bench.stamp ## compare optimizers on COCO's functions, a quarter of an hour
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.bbob.run

bench-finetune: $(VENV)/bench.stamp ## compare ways to teach a language model, four hours on two cores
	$(BIN)/python examples/fetch.py
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.finetune.run

bench-auto: $(VENV)/bench.stamp ## compare rates that a run finds itself with a grid, five hours
	$(BIN)/python examples/fetch.py
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.auto.run

bench-repeat: $(VENV)/bench.stamp ## run some committed trials again and compare, two minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.repeat

# A benchmark goes on with the results that are there, also those that are committed. Delete
# benchmarks/NAME/results to have them made anew.
bench: bench-functions bench-bbob bench-finetune bench-auto ## all comparisons that are missing, and the page
	$(BIN)/python -m benchmarks.publish

bench-smoke: $(VENV)/bench.stamp ## run the comparisons of optimizers at toy size
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.functions.run --smoke
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.functions.rank --smoke
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.functions.cost --smoke
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.bbob.run --smoke
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.finetune.run --smoke
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.repeat --count 2 --only mezo

clean: ## remove .venv and what builds and tools leave behind
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Torch comes first and alone, because it is the one dependency of which several builds exist.
# The plain version in constraints.txt takes the build that the configured index offers (CPU or
# CUDA), the zoopt installation after it finds torch satisfied whatever else it has to resolve,
# and an edit of pyproject.toml does not touch it.
$(VENV)/torch.stamp: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) torch
	touch $@

$(VENV)/demo.stamp: pyproject.toml $(VENV)/torch.stamp
	$(INSTALL) --editable '.[demo]'
	touch $@

$(VENV)/bench.stamp: pyproject.toml $(VENV)/torch.stamp
	$(INSTALL) --editable '.[demo,bench]'
	touch $@

$(VENV)/dev.stamp: pyproject.toml $(VENV)/torch.stamp
	$(INSTALL) --editable '.[demo,data,bench,dev]'
	touch $@

# Beside the environment, and without its constraints, which have the highest version.
$(VENV)/lowest.stamp: $(VENV)/dev.stamp
	$(BIN)/python -m pip install --target $(VENV)/lowest transformers==5.0.0
	touch $@

# Two commands are the whole set-up: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: help demo test notebooks notebooks-check check clean

help:            ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## */\t/'

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "flaxformer-edu needs Python 3.11 or newer; say which one to use: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.demo: pyproject.toml | .venv/bin/python
	$(PIP) --editable .
	@touch $@

.venv/.test: pyproject.toml | .venv/bin/python
	$(PIP) --editable '.[test]'
	@touch $@

.venv/.notebooks: pyproject.toml | .venv/bin/python
	$(PIP) --editable '.[notebooks,torch]'
	@touch $@

.venv/.dev: pyproject.toml | .venv/bin/python
	$(PIP) --editable '.[dev]'
	@touch $@ .venv/.test .venv/.notebooks .venv/.demo

demo: .venv/.demo   ## install, then verify, train and draw: two minutes
	$(BIN)/flaxformer-edu demo

# The two modes run side by side: either keeps one core busy. The second one's output comes when the first is through.
test: .venv/.test   ## install with PyTorch, then run the suite in both of Flax NNX's modes
	@mkdir -p .cache
	@NNX_GRAPH_MODE=false NNX_GRAPH_UPDATES=false $(BIN)/python -m pytest -p no:cacheprovider >.cache/tree_mode.log 2>&1 & \
	tree=$$!; trap "kill $$tree" INT TERM; \
	$(BIN)/python -m pytest; graph=$$?; \
	wait $$tree; tree=$$?; \
	echo "The same in Flax NNX's tree mode:"; cat .cache/tree_mode.log; \
	exit $$((graph | tree))

notebooks: .venv/.notebooks   ## execute the notebooks from their sources, and write their .ipynb
	$(BIN)/python notebooks/run.py

notebooks-check: .venv/.notebooks   ## execute them on a small budget, and compare the .ipynb with their sources
	$(BIN)/python notebooks/run.py --check

check: .venv/.dev   ## lint and types
	$(BIN)/ruff check .
	$(BIN)/pyright

clean:           ## remove the environment, the caches and the demo's output
	rm -rf .venv .cache .pytest_cache .ruff_cache demo_output

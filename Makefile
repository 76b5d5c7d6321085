# Two commands are the whole set-up: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: help demo test test-all test-faults test-jax notebooks notebooks-check check clean

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

# The suite, spread over JOBS processes, file by file; then what touches Flax NNX once more, in its tree mode, where
# arguments are not checked against their annotations again.
JOBS ?= 2
SUITE = trap 'exit 130' INT TERM; \
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m '$(1)'; graph=$$?; \
	echo "What touches Flax NNX, in its tree mode:"; \
	NNX_GRAPH_MODE=false NNX_GRAPH_UPDATES=false \
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -p no:cacheprovider --jaxtyping-packages= -m '$(2)'; tree=$$?; \
	exit $$((graph | tree))

test: .venv/.test   ## install with PyTorch, then run the suite: whole, and in Flax NNX's second mode what touches it
	@$(call SUITE,not slow,not slow and not no_nnx and not one_mode)

test-all: .venv/.test   ## the suite with the long forms of its tests, all of it in both modes
	@$(call SUITE,slow or not slow,slow or not slow)

test-faults: .venv/.test   ## kills, damage and full disks by the hundred, with a table of what became of them
	$(BIN)/python -m pytest -p no:cacheprovider -m 'slow or not slow' tests/faults tests/training/test_kill.py

# Another jax in an environment of its own, without PyTorch, which may have no build for that Python: the files of tests
# that import it, or its twins, stay out. pyenv's `python3.13` answers only where that version is switched on.
JAX ?= 0.11.2
JAX_ENV := .venv-jax-$(JAX)-$(notdir $(PYTHON))
JAX_ROOMS := $(addprefix tests/,compiler layers models training decode)

$(JAX_ENV)/.ready: pyproject.toml
	@python=$(PYTHON); $$python --version >/dev/null 2>&1 || \
	    python=$$(ls -d "$$(pyenv root)"/versions/*/bin/$(PYTHON) 2>/dev/null | tail -n 1); \
	[ -n "$$python" ] || { echo "there is no $(PYTHON) here; say which one to use: make test-jax PYTHON=python3.12 ..."; exit 1; }; \
	$$python -m venv $(JAX_ENV)
	$(JAX_ENV)/bin/python -m pip install --quiet --disable-pip-version-check \
	    --editable '.[pytest]' jax==$(JAX) jaxlib==$(JAX)
	@touch $@

test-jax: $(JAX_ENV)/.ready   ## what needs no PyTorch, long forms too, with another jax: make test-jax JAX=0.11.2 PYTHON=python3.13
	$(JAX_ENV)/bin/python -m pytest -n $(JOBS) --dist loadfile -p no:cacheprovider -m 'slow or not slow' $(JAX_ROOMS) \
	    $$(grep -rlE '^ *(from|import) (torch|tests\.twins|twins)' $(JAX_ROOMS) | sed 's/^/--ignore=/')

notebooks: .venv/.notebooks   ## execute the notebooks from their sources, and write their .ipynb
	$(BIN)/python notebooks/run.py

notebooks-check: .venv/.notebooks   ## execute them on a small budget, and compare the .ipynb with their sources
	$(BIN)/python notebooks/run.py --check

check: .venv/.dev   ## lint and types
	$(BIN)/ruff check .
	$(BIN)/pyright

clean:           ## remove the environment, the caches and the demo's output
	rm -rf .venv .venv-jax-* .cache .pytest_cache .ruff_cache demo_output

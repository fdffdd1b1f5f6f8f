# Everything a person or CI does. `make help` lists it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PEERS := .venv-peers
BENCH := rounds clients batched masks sweep deployment game canonicalize arm

# Two at a time, but for those that start Ray or Flower: each wants the machine for itself.
TEST = $(BIN)/pytest -n 2 --dist loadfile -m "not long and not ray and not flower" \
	&& $(BIN)/pytest -m "(ray or flower) and not long"

.DEFAULT_GOAL := help
.PHONY: help demo test test-gpu test-long check bench bench-peers clean

help:  ## This list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $(READY)

demo: $(READY)  ## Two real lenders, four contracts, one verdict
	$(BIN)/python -m simulations experiment=loans

test: $(READY)  ## The tests (about 10 minutes on two cores)
	$(TEST)

test-gpu: $(READY)  ## The tests of GPUs, on a machine that has one
	@$(BIN)/python -c "import torch; torch.cuda.is_available() or exit(f'torch {torch.__version__} finds no GPU')"
	$(BIN)/pytest -m gpu -rs

test-long: $(READY) $(PEERS)/.ready  ## All tests, the long campaigns too
	$(BIN)/pytest

check: $(READY)  ## What CI runs: format, lint, types, import walls, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(TEST)

bench: $(READY)  ## Rounds, trainings and games, as ratios; the report is build/bench/bench.html
	for what in $(BENCH); do $(BIN)/python -m simulations.bench $$what --out build/bench || exit; done

bench-peers: $(PEERS)/.ready  ## Install what we are measured beside, in .venv-peers

# pfl is installed without asking what it wants: see its file.
$(PEERS)/.ready: simulations/bench/peers.txt simulations/bench/pfl.txt constraints.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -r $<
	$(PEERS)/bin/pip install --quiet --disable-pip-version-check --no-deps \
		-c constraints.txt -r simulations/bench/pfl.txt
	@touch $@

clean:  ## Remove the environments and caches (not your runs)
	rm -rf $(VENV) $(PEERS) .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info

# The two commands a new user needs are `make run` and `make test`; each installs what it needs into .venv first.
PYTHON ?= python3
VENV ?= .venv
# PyTorch's CPU build; for a GPU: make run TORCH_INDEX=https://download.pytorch.org/whl/cu130
TORCH ?= torch==2.13.0
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check
# Options of `clmm run`: make run ARGS="--set seed=1"
ARGS ?=
# What `make bench` trains on: cpu, or cuda
DEVICE ?= cpu
# Runs of a study at once, one core each
JOBS ?= 2
STUDY = $(BIN)/clmm study simulation/studies/$(1).yaml --set 'data.path="$(abspath $(2))"' --jobs $(JOBS) --page results/again/accuracy.md

.DEFAULT_GOAL := help
.PHONY: help run test test-long check proto bench bench-accuracy bench-reliability bench-host clean

help:
	@sed -n 's/^## //p' $(MAKEFILE_LIST)

## make run     train on the embedded data over two simulated hosts and write a report
run: $(VENV)/.simulation
	$(BIN)/clmm run $(ARGS)

## make test    prove it: unit, property, equivalence and real Flower tests
test: $(VENV)/.dev
	$(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

## make test-long   what takes minutes more: a deployment whose processes are killed, the benchmark end to end
test-long: $(VENV)/.dev
	$(BIN)/pytest -m long

## make check   lint, types, import contracts
check: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

## make proto   generate the host API's Python stubs again, into client/host/v1
proto: $(VENV)/.dev
	$(BIN)/python proto/generate.py

## make bench   measure docs/results/simulation.md again, into results/again (about half an hour on 2 cores, goes on where it was stopped)
bench: $(VENV)/.simulation
	mkdir -p results/again && cp -n docs/results/simulation.md results/again/
	$(BIN)/clmm bench simulation --device $(DEVICE) --page results/again/simulation.md

## make bench-accuracy   measure the headline rows of docs/results/accuracy.md again, into results/again (hours, resumable): UTD_MHAD=PATH HAPT=PATH
bench-accuracy: $(VENV)/.simulation
	$(if $(and $(UTD_MHAD),$(HAPT)),,$(error expected UTD_MHAD=PATH and HAPT=PATH, the archives that `clmm data fetch` gets))
	mkdir -p results/again && cp -n docs/results/accuracy.md results/again/
	$(foreach study,utd-mhad utd-mhad-54 utd-mhad-imu,$(call STUDY,$(study),$(UTD_MHAD)) &&) $(call STUDY,hapt,$(HAPT))

## make bench-reliability   measure the slow rows of docs/results/reliability.md again, into results/again (an hour or two, resumable): HAPT=PATH
bench-reliability: $(VENV)/.simulation
	$(if $(HAPT),,$(error expected HAPT=PATH, the archive that `clmm data fetch hapt` gets))
	mkdir -p results/again && cp -n docs/results/reliability.md results/again/
	$(BIN)/clmm bench reliability --hapt $(HAPT) --page results/again/reliability.md

## make bench-host   measure docs/results/host.md again, into results/again (ten minutes, resumable)
bench-host: $(VENV)/.dev
	mkdir -p results/again && cp -n docs/results/host.md results/again/
	$(BIN)/clmm bench host --page results/again/host.md

## make clean   remove the environment and what runs left beside the results
clean:
	rm -rf $(VENV) .flwr-home

$(VENV)/.torch:
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --no-deps --timeout 15 --retries 1 --index-url $(TORCH_INDEX) $(TORCH) || $(PIP) install --quiet $(TORCH)
	touch $@

$(VENV)/.simulation: $(VENV)/.torch pyproject.toml constraints.txt
	$(PIP) install --quiet --constraint constraints.txt --editable '.[simulation,privacy,export,host]'
	touch $@

$(VENV)/.dev: $(VENV)/.simulation
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

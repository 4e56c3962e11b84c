# The verbs of the project; `make help` lists them.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
READY = $(VENV)/.ready
INFERENCE = client/layerwire/inference_v2

.DEFAULT_GOAL := help
.PHONY: help install protos tables stubs lint format test test-deploy image-check check peers bench bench-growth profile demo up clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(READY) ## Make .venv with everything at the versions of constraints.txt

# torch goes first and alone: what depends on it must find the pinned build there, not choose a larger one.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) -e '.[dev]'
	@touch $@

protos: $(READY) ## Regenerate the Python code of protos/
	$(BIN)/python -m grpc_tools.protoc -I protos --python_out=client --pyi_out=client protos/layerwire/v1/*.proto
	$(BIN)/python -m grpc_tools.protoc -I protos --grpc_python_out=client protos/layerwire/v1/layerwire.proto protos/layerwire/v1/store.proto
	$(BIN)/python -m grpc_tools.protoc -I protos/inference --python_out=$(INFERENCE) --pyi_out=$(INFERENCE) protos/inference/*.proto

tables: $(READY) ## Rewrite the README's tables from the code
	$(BIN)/python -m tests.readme_tables

stubs: $(READY) ## Rewrite what type checkers know of the clients' methods
	$(BIN)/python -m tools.client_methods

lint: $(READY) ## ruff, mypy --strict, import-linter, buf
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint protos

format: $(READY) ## Let ruff put layout and imports in order
	$(BIN)/ruff check --fix --select I
	$(BIN)/ruff format

test: $(READY) ## Run the tests on all cores; `make test ARGS="-k lanes -x"` runs some, ARGS=-n0 one after the other
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal -m "not debian" $(ARGS)

test-deploy: $(READY) ## Run the tests that need Debian packages, and install those where that is allowed
	tools/packages.sh
	LAYERWIRE_DOCKER_COMPOSE=$${LAYERWIRE_DOCKER_COMPOSE:-$(CURDIR)/.tools/docker-compose} \
	$(BIN)/python -m pytest -m debian $(ARGS)

image-check: $(READY) ## Build the CPU image with podman, start it and try it; skips where it can't
	$(BIN)/python -m pytest -vs tests/containers/image $(ARGS)

check: lint test ## lint and test

peers: $(READY) ## Make .peers with mosec and Triton from PyPI, and install h2load from Debian, for `make bench`
	tools/peers.sh $(PYTHON)

bench: $(READY) ## Measure what must be reached and rewrite BENCHMARKS.md; takes 20 minutes
	$(BIN)/python -m tools.benchmarks $(ARGS)

bench-growth: $(READY) ## Measure how speed changes with callers, bytes, lanes, processes; plots in docs/growth
	$(BIN)/python -m tools.growth $(ARGS)

profile: $(READY) ## What a call costs each process, and which functions it goes to
	$(BIN)/python -m tools.profile $(ARGS)

demo: $(READY) ## A photograph and a small CNN through a server of its own
	$(BIN)/layerwire demo $(ARGS)

up: $(READY) ## Run a server in the foreground
	$(BIN)/layerwire serve $(ARGS)

clean: ## Remove caches and builds; .venv stays
	rm -rf build dist demo-output .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find client server tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Needs Python 3.11 or newer and make; everything else is installed into .venv by `make setup`.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.valkyr-setup
PROTOS := $(shell find protos -name '*.proto')
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check --no-input
UNIT_TESTS := tests/unit tests/integration tests/contract tests/simulator
PROCESS_TESTS := tests/e2e tests/chaos

.PHONY: help setup protos lint test campaign-kill campaign-runners campaign-network campaign-simulator campaign-mutants campaign-save campaign-graphs up demo bench bench-graph bench-graph-publish bench-peers bench-peers-publish bench-publish k8s-validate lock clean

help:
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/\1\t\2/p' Makefile | while IFS=$$'\t' read -r name text; do printf '  make %-20s %s\n' "$$name" "$$text"; done

setup: $(STAMP) ## install everything into .venv (only what changed)

ifeq ($(wildcard valkyr/api/graph/v1/graph_pb2.py),)
$(STAMP): FORCE
FORCE:
endif

$(STAMP): requirements.lock pyproject.toml hatch_build.py $(PROTOS)
	@for python in python3.11 python3 python; do
	  if command -v "$$python" >/dev/null && "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$python; break; fi
	done
	if [ -z "$${found:-}" ]; then echo "Python 3.11 or newer is needed: no python3.11, python3 or python on the PATH is one" >&2; exit 1; fi
	if ! $(BIN)/python -c 'import pip' 2>/dev/null; then
	  "$$found" -c 'import ensurepip, venv' 2>/dev/null || { echo "$$found has no venv: install the package python3-venv of your system" >&2; exit 1; }
	  "$$found" -m venv --clear $(VENV)
	fi
	if ! cmp -s requirements.lock $(VENV)/.valkyr-lock; then
	  $(PIP) install --require-hashes -r requirements.lock
	  cp requirements.lock $(VENV)/.valkyr-lock
	fi
	$(PIP) install --no-deps --no-build-isolation --editable .
	touch $(STAMP)

protos: $(STAMP) ## generate the gRPC stubs in valkyr/api
	@$(BIN)/python hatch_build.py

lint: $(STAMP) ## ruff, mypy, import-linter, buf
	@$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code

test: $(STAMP) ## every test: unit, integration and contract, then e2e and chaos; the last line counts all
	@folder=$$(mktemp -d)
	trap 'rm -rf "$$folder"' EXIT
	code=0; $(BIN)/pytest -q -n 3 --junitxml="$$folder/first" $(UNIT_TESTS) </dev/null || code=$$?
	first=$$folder/first=$$code
	code=0; $(BIN)/pytest -q -n 2 --dist loadfile --junitxml="$$folder/second" $(PROCESS_TESTS) </dev/null || code=$$?
	$(BIN)/python -m tests.total "$$first" "$$folder/second=$$code"

campaign-kill: $(STAMP) ## kill -9 everything in turn under load, SEEDS=100 schedules from FIRST=1 on; stops at the first that fails
	@$(BIN)/python -m tests.chaos.killing --seeds $(or $(SEEDS),100) --first $(or $(FIRST),1)

campaign-runners: $(STAMP) ## three runners under full load for MINUTES=10, half of them starved; KILLS=60, DRAINS=50; LEASE=10 s; JSON=FILE
	@$(BIN)/python -m tests.chaos.remote --minutes $(or $(MINUTES),10) --kills $(or $(KILLS),60) --drains $(or $(DRAINS),50) \
	  --lease $(or $(LEASE),10) $(if $(JSON),--json $(JSON))

campaign-network: $(STAMP) ## runners and executors for MINUTES=10 over a network that goes wrong in every way, SEED=1
	@$(BIN)/python -m tests.chaos.network_campaign --minutes $(or $(MINUTES),10) --seed $(or $(SEED),1)

campaign-simulator: $(STAMP) ## simulate SEEDS=1000000 schedules of the executor's core from FIRST=1 on; stops at the first that fails
	@$(BIN)/python -m tests.simulator --seeds $(or $(SEEDS),1000000) --first $(or $(FIRST),1)

campaign-mutants: $(STAMP) ## plant bugs in the executor's core one by one; each must be found by the simulator
	@$(BIN)/python -m tests.simulator.mutants

campaign-save: $(STAMP) ## kill graph store and PostgreSQL at any statement of a save, STRIKES=1500 times; fifty writers, ROUNDS=200
	@$(BIN)/python -m tests.chaos.saving --strikes $(or $(STRIKES),1500) --seed $(or $(SEED),1) --rounds $(or $(ROUNDS),200)

campaign-graphs: $(STAMP) ## hold the validator against networkx on GRAPHS=100000 random graphs from FIRST=1 on
	@$(BIN)/python -m tests.unit.graph.oracle --graphs $(or $(GRAPHS),100000) --first $(or $(FIRST),1)

up: $(STAMP) ## start PostgreSQL and the services; Ctrl-C stops them
	@exec $(BIN)/python -m services

demo: $(STAMP) ## start a stack of its own and run example workflows
	@$(BIN)/python -m examples.demo

bench: $(STAMP) ## measure WORKLOADS="W1 W3" (all) in ROUNDS=3; QUICK=1 only shows that it works; JSON=FILE keeps raw figures
	@$(BIN)/python -m benchmarks $(WORKLOADS) --rounds $(or $(ROUNDS),3) $(if $(QUICK),--quick) $(if $(JSON),--json $(JSON))

bench-graph: $(STAMP) ## measure the graph store by size, SIZES="G1 G3" (all) in ROUNDS=3; QUICK=1 only shows that it works; JSON=FILE
	@$(BIN)/python -m benchmarks.graph_store $(SIZES) --rounds $(or $(ROUNDS),3) $(if $(QUICK),--quick) $(if $(JSON),--json $(JSON))

bench-graph-publish: $(STAMP) ## make the record JSON=FILE the one of docs/performance/graph_store.md
	@$(BIN)/python -m benchmarks.graph_store.publish $(JSON)

bench-peers: $(STAMP) ## measure PEERS="dbos celery" (all) and Valkyr in turns, ROUNDS=3; QUICK=1 only shows that it works
	@$(BIN)/python -m benchmarks.peers $(PEERS) --rounds $(or $(ROUNDS),3) $(if $(QUICK),--quick) $(if $(JSON),--json $(JSON))

bench-peers-publish: $(STAMP) ## make the session JSON=FILE the one of docs/performance/peers.md
	@$(BIN)/python -m benchmarks.peers.publish $(JSON)

bench-publish: $(STAMP) ## make the record JSON=FILE the one of docs/performance: tables and plots
	@$(BIN)/python -m benchmarks.publish $(JSON)

k8s-validate: $(STAMP) ## build the Kubernetes overlays; check them by schema, against each other and against the code
	@$(BIN)/python -m deploy.checks

lock: $(STAMP) ## write requirements.lock anew from pyproject.toml
	@$(BIN)/uv pip compile --quiet --upgrade --python-version 3.11 --generate-hashes --no-annotate --no-header \
	  --no-emit-index-url --universal --extra server --extra local --extra stubs --extra dev pyproject.toml --output-file requirements.lock

clean: ## remove what was generated or installed, but no data
	@rm -rf $(VENV) benchmarks/.venvs .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +

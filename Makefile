# The manual of this repository: `make help`.
# Prerequisites of `make demo` and `make test`: Linux, make, Python >= 3.11 and its venv module. Everything else is installed into .venv.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
# Tests start hundreds of programs: without caches of bytecode each would compile what it imports.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
KERNELS := worker/glm_worker/kernels/cpu/libglm_kernels.so
CLUSTER := PYTHONPATH=tests/cluster $(BIN)/python -m glm_cluster
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links
PYTEST := $(BIN)/python -m pytest
# What may run beside the stories: they take the longest, and wait for commands and clients of theirs.
BESIDE := nice -n 10
# What decides whether tests of kernels pass, beside the locks and the processor: they run again when any of it changed.
OF_KERNELS := worker/glm_worker tests/unit/worker/kernels tests/integration/rank_pool.py tests/integration/tiny_models.py tests/integration/free_ports.py tests/cluster/glm_cluster tests/conftest.py pyproject.toml
CODE := operator worker tests scripts examples benchmarks charts

export OMP_NUM_THREADS ?= 1
# Outside the checkout, as all caches: what a fresh clone has in common with the last one is not analysed again
export MYPY_CACHE_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/glm-operator/mypy
# Go is looked for where its own archive puts it: sudo's PATH lacks that folder, and a distribution's Go may be too old.
export PATH := /usr/local/go/bin:$(PATH)

##@ Start here

.PHONY: help
help: ## List every target
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' Makefile

.PHONY: demo
demo: $(INSTALLED) $(KERNELS) ## Serve glm-nano on this machine, chat with it, call a tool, shut down (no root, no cluster)
	@$(BIN)/python examples/demo.py

.PHONY: test
test: $(INSTALLED) $(KERNELS) ## Everything below that this machine can run, fast stages first
	@$(BIN)/python scripts/stages.py

.PHONY: setup
setup: $(INSTALLED) $(KERNELS) ## Create .venv with every locked dependency (what the other targets do by themselves)

# One stamp: `uv pip sync` makes the environment exactly what the locks say, then the project itself goes in without dependencies.
$(INSTALLED): locks/dev.txt locks/uv.txt pyproject.toml scripts/prerequisites.sh
	@bash scripts/prerequisites.sh "$(PYTHON)"
	@echo "==> Installing into $(VENV): uv, then $$(grep -c '==' locks/dev.txt) locked packages, among them PyTorch with its CUDA libraries" >&2
	@echo "    (the first time about 3 GB to download, 7 GB on disk and 2 to 5 minutes; from uv's cache about 1 minute, for compiling)" >&2
	@test -x $(BIN)/uv || { $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r locks/uv.txt; }
	@$(BIN)/uv pip sync --python $(BIN)/python --compile-bytecode --require-hashes locks/dev.txt locks/uv.txt
	@$(BIN)/uv pip install --python $(BIN)/python --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# The compiler is one of the locked packages. build.py compiles only where a source has changed; the stamp is for make alone.
$(KERNELS): $(wildcard worker/glm_worker/kernels/cpu/*.[ch]) worker/glm_worker/kernels/cpu/build.py | $(INSTALLED)
	@$(BIN)/python worker/glm_worker/kernels/cpu/build.py
	@touch $@

# Clients of other projects, in environments of their own: they pin other versions than ours.
CLIENTS := .venv-clients
PEERS := .venv-peers
NODE_CLIENTS := tests/clients/node/node_modules

.PHONY: clients
clients: $(CLIENTS)/.installed $(NODE_CLIENTS)/.installed ## Install the clients that the server is tested with: litellm, LangChain, Node's openai

$(CLIENTS)/.installed: locks/clients.txt | $(INSTALLED)
	@$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python $(CLIENTS)
	@$(BIN)/uv pip sync --quiet --python $(CLIENTS)/bin/python --require-hashes locks/clients.txt
	@touch $@

.PHONY: peers
peers: $(PEERS)/.installed ## Install the gateways that ours is measured against: LiteLLM's proxy, smg, vllm-router

$(PEERS)/.installed: locks/peers.txt | $(INSTALLED)
	@$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python $(PEERS)
	@$(BIN)/uv pip sync --quiet --python $(PEERS)/bin/python --require-hashes locks/peers.txt
	@touch $@

$(NODE_CLIENTS)/.installed: tests/clients/node/package-lock.json
	@if command -v npm >/dev/null; then cd tests/clients/node && npm ci --silent --no-audit --no-fund --ignore-scripts; \
	else mkdir -p $(NODE_CLIENTS); echo "npm is not installed: Node's clients are left out of the tests" >&2; fi
	@touch $@

# Coding agents, for `make e2e-long` only: half a gigabyte of other people's programs. `npm ci` wants every optional package of
# the lock's platforms to be in the registry, which not every registry has; `npm install` keeps to the lock as well. opencode's
# own script puts its binary in its place.
AGENTS := tests/clients/agents/node_modules

$(AGENTS)/.installed: tests/clients/agents/package-lock.json
	@if command -v npm >/dev/null; then cd tests/clients/agents && npm install --silent --no-save --no-audit --no-fund --ignore-scripts && node node_modules/opencode-ai/postinstall.mjs; \
	else mkdir -p $(AGENTS); echo "npm is not installed: the coding agents are left out of the long stories" >&2; fi
	@touch $@

##@ Check

.PHONY: check
check: lint types imports ## Before each commit: the three stages that take no more than a minute, and refuse a landing

.PHONY: lint
lint: $(INSTALLED) ## ruff: lint and format, operator, worker, tests, scripts
	@$(BIN)/ruff check $(CODE)
	@$(BIN)/ruff format --check $(CODE)

.PHONY: format
format: $(INSTALLED) ## ruff: rewrite what lint would refuse, where it can
	@$(BIN)/ruff check --fix-only --quiet $(CODE)
	@$(BIN)/ruff format $(CODE)

.PHONY: types
types: $(INSTALLED) ## mypy --strict on both packages, the scripts, the benchmarks and the demo
	@$(BIN)/mypy
	@MYPYPATH=tests/cluster:tests $(BIN)/mypy scripts/*.py examples/*.py benchmarks/*.py benchmarks/peers/*.py

.PHONY: imports
imports: $(INSTALLED) ## import-linter: who may import whom
	@$(BIN)/lint-imports --no-cache

.PHONY: unit
unit: unit-worker unit-rest ## Pure tests: fast each, no processes. In two halves, for handing each to a process of a pool costs more than it

.PHONY: unit-worker
unit-worker: $(INSTALLED) $(KERNELS) ## Those of the worker
	@$(BESIDE) $(PYTEST) -m "not e2e" tests/unit/worker

.PHONY: unit-rest
unit-rest: $(INSTALLED) ## All others
	@$(BESIDE) $(PYTEST) -m "not e2e" --ignore=tests/unit/worker tests/unit

.PHONY: sanitize
sanitize: $(INSTALLED) ## Tests of the kernels in C where undefined behaviour and steps outside of a buffer end the process
	@$(BIN)/python scripts/once.py sanitize $(OF_KERNELS) scripts/sanitize.py scripts/sanitizer_check.py scripts/guarding_malloc.c -- $(BIN)/python scripts/sanitize.py

.PHONY: triton
triton: $(INSTALLED) ## Each kernel in Triton equals its plain twin, by Triton's interpreter: no GPU is needed
	@TRITON_INTERPRET=1 $(BIN)/python scripts/once.py triton $(OF_KERNELS) -- $(PYTEST) -q $(wildcard tests/unit/worker/kernels/interpreted/check_*.py)

.PHONY: lifecycle
lifecycle: $(INSTALLED) ## A cluster of this machine dies, comes back and goes without a trace; none may be up
	@$(CLUSTER) programs
	@$(PYTEST) tests/integration/test_cluster_down.py

.PHONY: contract
contract: $(INSTALLED) $(KERNELS) ## What types cannot pin: CRD, RBAC, chart, environment names, metrics
	@$(PYTEST) -m "not e2e" tests/contract

.PHONY: rules
rules: $(INSTALLED) ## promtool: check the alerts and recording rules, and test each alert
	@promtool check rules charts/glm-operator/files/alerts.yaml charts/glm-operator/files/recording.yaml
	@promtool test rules tests/rules/*.yaml

.PHONY: integration
integration: $(INSTALLED) $(KERNELS) clients ## Real neighbours: gloo ranks, HTTP, processes; three test files at a time, for much of it is waiting
	@$(BESIDE) $(PYTEST) -n 3 --dist loadfile --no-loadscope-reorder -m "not e2e and not long" tests/integration

.PHONY: integration-long
integration-long: $(INSTALLED) $(KERNELS) clients ## The long ones among them: every dashboard in four states, every fault at every write, each benchmark's model
	@$(PYTEST) -m "not e2e and long" tests/integration

.PHONY: gpu
gpu: $(INSTALLED) ## Parity and serving on CUDA devices; skips loudly without one
	@$(PYTEST) tests/gpu

.PHONY: e2e
e2e: $(INSTALLED) ## User stories on a real cluster: ours (Linux, root, Go), or E2E_KUBECONFIG with E2E_OPERATOR_IMAGE and E2E_WORKER_IMAGE
	@$(BIN)/python scripts/e2e.py

.PHONY: e2e-long
e2e-long: $(INSTALLED) $(AGENTS)/.installed ## Long stories: a fleet of 300, eight clients through every change of a deployment, two coding agents; numbers for docs/log.md
	@$(BIN)/python scripts/e2e.py --long

.PHONY: fuzz
fuzz: $(INSTALLED) ## Hostile requests, the long form: 5,500 of the API's description, 20,000 mutated bodies, 60,000 of raw bytes; numbers for docs/log.md
	@PYTHONPATH=tests $(BIN)/python -m fuzz
	@PYTHONPATH=tests $(BIN)/python -m fuzz.raw

##@ Run a real cluster on this machine

.PHONY: cluster
cluster: $(INSTALLED) ## Bring up Kubernetes from source on this machine (Linux, root, Go; idempotent)
	@$(CLUSTER) up

.PHONY: cluster-down
cluster-down: $(INSTALLED) ## Take it down: no process, mount, network namespace or cgroup stays
	@$(CLUSTER) down

.PHONY: cluster-clean
cluster-clean: $(INSTALLED) ## Remove its programs and images from the cache; it must be down
	@$(CLUSTER) clean

.PHONY: cluster-shell
cluster-shell: $(INSTALLED) ## Print how to use kubectl and helm on it
	@$(CLUSTER) shell

.PHONY: cluster-nano
cluster-nano: $(INSTALLED) ## Build and push the images, install the chart, serve glm-nano on it
	@PYTHONPATH=tests/cluster $(BIN)/python scripts/cluster_nano.py

.PHONY: images
images: $(INSTALLED) ## Build the operator and worker images and push them to the cluster's registry
	@$(CLUSTER) images

##@ Generate and maintain

.PHONY: crds
crds: $(INSTALLED) ## Generate the CRD, docs/api.md, docs/operations.md, and the chart's copies of CRD and permissions
	@$(BIN)/python scripts/generate.py

.PHONY: dashboards
dashboards: $(INSTALLED) ## Generate Grafana's dashboards in the chart
	@$(BIN)/python scripts/dashboards.py

.PHONY: dashboard-pictures
dashboard-pictures: $(INSTALLED) ## Draw each dashboard in Chromium, from a real Prometheus and a real local deployment, for docs/images
	@PYTHONPATH=tests:tests/cluster $(BIN)/python scripts/pictures/dashboard_pictures.py

.PHONY: lock
lock: $(INSTALLED) ## Lock the newest versions that pyproject.toml allows, with hashes
	@$(LOCK) --upgrade pyproject.toml --all-extras -o locks/dev.txt
	@$(LOCK) --upgrade --group clients -o locks/clients.txt
	@$(LOCK) --upgrade pyproject.toml --extra operator -c locks/dev.txt -o locks/operator.txt
	@$(LOCK) --upgrade pyproject.toml --extra worker -c locks/dev.txt -o locks/worker.txt
	@printf '%s\n' 'litellm[proxy]==1.110.*' 'smg==1.13.*' 'vllm-router==0.1.*' > .peers.in
	@echo litellm-proxy > .peers-excluded.in; printf '%s\n' 'litellm-enterprise>=0.1' 'litellm-proxy-extras>=0.4' > .peers-loose.in
	@$(LOCK) --upgrade --no-annotate --excludes .peers-excluded.in --override .peers-loose.in .peers.in -o locks/peers.txt
	@rm .peers*.in
	@echo "ziglang>=0.17" | $(LOCK) --upgrade - -c locks/dev.txt -o locks/kernels.txt
	@printf '%s\n' cmake ninja gguf llama-cpp-python scikit-build-core | $(LOCK) --upgrade --no-annotate - -o locks/engine-peers.txt
	@echo accelerate | $(LOCK) --upgrade --no-annotate --no-deps - -o locks/transformers-serve.txt
	@echo "setuptools>=77" | $(LOCK) --upgrade - -c locks/dev.txt -o locks/build.txt
	@echo "uv" | $(LOCK) --upgrade - -o locks/uv.txt

.PHONY: bench
bench: $(INSTALLED) $(KERNELS) ## Every benchmark, on a quiet machine; each ends with its JSON lines. Fails where a goal was missed
	@failed=""; for script in $(filter-out benchmarks/models.py,$(wildcard benchmarks/*.py)); do \
		echo "==> $$script"; $(BIN)/python "$$script" || failed="$$failed $$script"; \
	done; test -z "$$failed" || { echo "a goal missed, or not run:$$failed"; exit 1; }

.PHONY: clean
clean: ## Remove the virtual environment and every cache in the checkout
	@rm -rf $(VENV) $(KERNELS) $(CLIENTS) $(PEERS) tests/clients/*/node_modules build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find operator worker tests scripts examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

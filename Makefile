# Every target with a line of help: `make help`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# uv unpacks while it downloads (the CUDA build of torch and its libraries are 3 GB) and compiles on all cores: else
# the first demo compiles in each of its processes. It reads no pip.conf.
LINKS := $(foreach folder,$(PIP_FIND_LINKS),--find-links $(folder))
PYTEST := $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow tools chart-test dashboard-shots lint format bench-quality reproduce reproduce-full bench-models bench-reranking bench-training bench-scaling bench-features bench-retrieval bench-shards bench-ann bench-serving bench-swap bench-experiments chaos wheel wheel-test kind-up kind-demo kind-down clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP)  ## make .venv and install the pinned requirements

$(STAMP): pyproject.toml requirements/constraints.txt requirements/fbgemm-cpu/pyproject.toml
	@date +%s > .install-start
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv==0.13.9
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir $(VENV)/wheels requirements/fbgemm-cpu
	$(BIN)/uv pip install --compile-bytecode --python $(BIN)/python --find-links $(VENV)/wheels $(LINKS) \
	  --constraint requirements/constraints.txt --editable '.[demo,dev]'
	@expr $$(date +%s) - $$(cat .install-start) > $@; rm -f .install-start

demo: install  ## the main job on real data: import, train, publish, serve, experiment
	$(BIN)/tastemaker demo $(ARGS)

test: install  ## the tests that are not slow (under 12 minutes on 2 cores)
	$(PYTEST) -m "not slow and not gpu and not chart" $(ARGS)

test-slow: install  ## the slow tests
	$(PYTEST) -m "slow and not gpu and not chart" $(ARGS)

tools:  ## helm, kubectl and the checkers of the chart, by checksum, into .tools
	$(PYTHON) k8s/fetch_tools.py

# Some 470 MB of npm packages, by the hashes of the lock file; nothing of them is run at installation.
SHOTS := .tools/dashboard-shots
$(SHOTS)/.installed: helm/dashboards/shots/package-lock.json
	mkdir -p $(SHOTS)
	cp helm/dashboards/shots/package.json helm/dashboards/shots/package-lock.json $(SHOTS)
	npm ci --prefix $(SHOTS) --ignore-scripts --legacy-peer-deps --no-audit --no-fund
	touch $@

dashboard-shots: install $(SHOTS)/.installed  ## pictures of the dashboards by Grafana's own components; needs node, chromium, prometheus
	$(BIN)/python -m helm.dashboards.shots $(ARGS)

chart-test: install tools  ## the Helm chart: lint, renders, schemas of Kubernetes, references, and that nothing in it is fiction
	$(PYTEST) -m chart tests/deploy $(ARGS)

lint: install  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench-quality: install  ## offline quality over three seeds, beside its targets
	$(BIN)/python benchmarks/quality.py $(ARGS)

reproduce: install  ## models beside their published figures, under an hour each part (ARGS="--only topn")
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/reproduce.py $(ARGS)

reproduce-full: install  ## the same with what takes hours: sequence models and networks
	FULL=1 OMP_NUM_THREADS=1 $(BIN)/python benchmarks/reproduce.py $(ARGS)

bench-models: install  ## evaluation, ALS and memory beside peers, which are installed apart
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/models.py $(ARGS)

bench-reranking: install  ## what each reranking stage costs and gains, and MMR and DPP beside plain loops (FULL=1: more turns)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/reranking.py $(ARGS)

bench-training: install  ## sharded training beside plain jobs: speed, memory, checkpoints, input (FULL=1: more turns)
	$(BIN)/python benchmarks/training.py $(ARGS)

bench-features: install  ## reading, writing, streaming and rebuilding features (FULL=1: more turns)
	$(BIN)/python benchmarks/features.py $(ARGS)

bench-serving: install  ## latency and throughput of both graphs at 1M items, about 25 minutes (FULL=1: more turns)
	$(BIN)/python benchmarks/serving.py $(ARGS)

bench-swap: install  ## promotions and rollbacks under load at 1M items, about 10 minutes; a part of bench-serving's page
	$(BIN)/python benchmarks/serving.py --only swaps $(ARGS)

bench-experiments: install  ## false positives, power, regret and off-policy estimates on simulated worlds, part by part, about 20 minutes (FULL=1: more)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/experiments.py $(ARGS)

chaos: install  ## kill, freeze, slow and corrupt each part under load, about 15 minutes; needs the right to mount a tmpfs
	$(BIN)/python benchmarks/chaos.py $(ARGS)

bench-ann: install  ## recall, time and memory of every kind of index (20 minutes; FULL=1: 10M items too)
	$(BIN)/python benchmarks/ann.py $(ARGS)

bench-retrieval: install  ## each source of candidates and the whole stage over a million items
	$(BIN)/python benchmarks/retrieval.py $(ARGS)

bench-shards: install  ## memory and time of a retriever of the whole, and of one shard, at 1M items
	$(BIN)/python benchmarks/shards.py $(ARGS)

bench-scaling: install  ## the paper plan of docs/scaling.md, held against a small run
	$(BIN)/python benchmarks/scaling.py $(ARGS)

wheel: install  ## the wheels of a release, in dist/
	rm -rf dist
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist . requirements/fbgemm-cpu

wheel-test: wheel  ## the wheel alone, in an empty environment and folder, runs the quick demo
	bash tests/deploy/wheel_demo.sh dist

kind-up:  ## a kind cluster with KubeRay, Prometheus, Grafana and our images (needs docker and kind)
	bash k8s/kind/up.sh

kind-demo:  ## the chart in that cluster, a first version and some traffic for the dashboards
	bash k8s/kind/demo.sh

kind-down:  ## remove that cluster
	kind delete cluster --name tastemaker

clean:  ## remove what the targets made (not the home folder)
	rm -rf dist build benchmarks/out .mypy_cache .ruff_cache .pytest_cache .hypothesis

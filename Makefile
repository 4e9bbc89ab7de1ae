# Further arguments go through ARGS, as in: make test ARGS="-k proxy"
ARGS ?=
# How many processes share the tests; a file's tests stay together.
WORKERS ?= 4
BIN := .venv/bin
# The container engine: docker or podman, whichever answers first.
ENGINE ?= $(shell for each in docker podman; do \
	$$each info >/dev/null 2>&1 && echo $$each && break; done)
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
# What the image is called; the cluster of chart-cluster has to know it by this name.
IMAGE ?= tympan:$(VERSION)
# Further options of its build, such as --build-arg EXTRAS=worker,telemetry
BUILD ?=

.DEFAULT_GOAL := help
.PHONY: help prepare tools demo test lint format conformance race failovers scale model mutants bench \
	bench-quick peers fuzz farm faults faults-long soak image chart chart-cluster clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)$$/\1|\2/p' Makefile | \
		while IFS='|' read -r target text; do printf '  %-13s %s\n' "$$target" "$$text"; done

prepare:
	@.ci/prepare

tools:
	@tests/chart/prepare

demo: prepare ## run the demonstration against a private redis-server
	@$(BIN)/python -m workers.demo $(ARGS)

test: prepare tools ## run all tests
	$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder \
		--rerun-show-tracebacks $(ARGS)

lint: prepare ## check style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: prepare ## format the code and mend what can be mended
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

conformance: prepare ## run the conformance suite and print what holds on which backend
	$(BIN)/python -m tests.conformance $(ARGS)

race: prepare ## let many responders race for one question on a real server
	$(BIN)/python -m tests.race $(ARGS)

failovers: prepare ## let primaries die again and again under dialogs, by Sentinel and in a Cluster
	$(BIN)/python -m tests.failovers $(ARGS)

scale: prepare ## let replicas of a pool share, die and be rolled; and count what they did
	$(BIN)/python -m tests.scale $(ARGS)

farm: prepare ## let three real CUPS hosts, printers and listeners talk, break them, and count
	$(BIN)/python -m tests.cups.farm $(ARGS)

faults: prepare ## break everything that can be broken on one machine, and count; 10 minutes
	$(BIN)/python -m tests.faults $(ARGS)

faults-long: prepare ## the same, ten to a hundred times as often; hours
	$(BIN)/python -m tests.faults --long $(ARGS)

soak: prepare ## half an hour of churn and kills: does anything grow?
	$(BIN)/python -m tests.soak $(ARGS)

model: prepare ## search the model of a dialog, and its mutants, with spin; about two minutes
	$(BIN)/python -m tests.verification $(ARGS)

mutants: prepare ## check that the tests notice broken scripts
	$(BIN)/python -m tests.mutants $(ARGS)

peers: prepare
	-@benchmarks/peers/prepare

bench: peers ## measure the broker against raw Redis and its peers; at most 20 minutes
	@$(BIN)/python -m benchmarks $(ARGS)

bench-quick: peers ## the first four rows of it, in two minutes
	@$(BIN)/python -m benchmarks --quick $(ARGS)

fuzz: prepare ## feed what parses with a coverage-guided fuzzer, 30 seconds each
	@tests/fuzz/prepare
	@.venv-fuzz/bin/python -m tests.fuzz $(ARGS)

image: ## build the image tympan:VERSION, with docker or podman
	@test -n "$(ENGINE)" || \
		{ echo "image: neither docker nor podman answers: start one, or say ENGINE=" >&2; exit 1; }
	$(ENGINE) build --build-arg VERSION=$(VERSION) \
		--build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null || echo unknown) \
		--tag $(IMAGE) $(BUILD) .

chart: prepare tools image ## check the chart, and the image: built, run and drained
	$(BIN)/pytest -n 0 tests/chart $(ARGS)
	$(BIN)/python -m tests.chart_image --engine $(ENGINE) --image $(IMAGE)

chart-cluster: prepare tools ## install, load, upgrade, break and scale the chart on kubectl's cluster
	$(BIN)/python -m tests.chart_cluster --image $(IMAGE) $(ARGS)

clean: ## remove everything that was made: environment, builds, caches
	rm -rf .venv .venv-bench .venv-fuzz .fuzz .tools build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

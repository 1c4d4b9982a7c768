# `make help` lists the targets. Every target sets up what it needs, and at once when that is there.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
BIN := .venv/bin
RUN := PYTHONUNBUFFERED=1 $(BIN)/python
RUNTIME := .venv/runtime.stamp
DEV := .venv/dev.stamp
DOCS := .venv/docs.stamp
DASHBOARD := .venv/dashboard.stamp
EXPORT := .venv/export.stamp
PARITY := .venv-parity/ready.stamp
PEERS_VENV := .venv-peers/ready.stamp
OLPS := .venv-olps/ready.stamp
ARGS ?=
PRETRAIN_ARGS ?=
FINETUNE_ARGS ?=
EVALUATE_ARGS ?=

# Spinning OpenMP threads make everything beside them many times slower.
export OMP_WAIT_POLICY := PASSIVE

# Each stage is told the folder of the run, or of the sweep, before it: a newer run elsewhere is never taken instead.
# Of ARGS, evaluate reads where outputs go and the hardware; the rest it reads from the run. The shell splits ARGS,
# not make: a value may be quoted, with blanks in it. `ours` are those words; quotes within a path are escaped.
define pipeline
log=$$(mktemp); trap 'rm -f "$$log"' EXIT; \
last() { sed -n "s/^$$1: //p" "$$log" | tail -n 1; }; \
quoted() { printf "'%s'" "$$(last "$$1" | sed "s/'/\\\\'/g")"; }; \
ours=(); for word in $(ARGS); do \
	case "$$word" in output_root=*|hardware=*|hardware.device=*|hardware.threads=*) ours+=("$$word");; esac; \
done; \
$(RUN) experiments/pretrain.py $(1) $(ARGS) $(PRETRAIN_ARGS) | tee "$$log"; \
made=$$(quoted 'Run folder'); \
$(RUN) experiments/finetune.py $(1) $(if $(findstring init.weights=,$(FINETUNE_ARGS)),,"init.weights=$$made") \
	$(ARGS) $(FINETUNE_ARGS) | tee "$$log"; \
made=$$(quoted 'Run folder'); \
$(RUN) experiments/evaluate.py $(2) "run=$$made" \
	$${ours[@]+"$${ours[@]}"} $(EVALUATE_ARGS) | tee "$$log"; \
printf '\nThe report: %s\n' "$$(last Report)"
endef

.PHONY: help setup demo train walkforward collect look pretrain finetune evaluate judge decide explain export sweep dashboard docs configuration test mutations lint parity bench olps growth profile clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 15
	@echo
	@echo 'Options go into ARGS: make train ARGS="market_regime=volatile seed=1". PYTHON=python3.12 picks the interpreter.'

setup: $(RUNTIME) ## make .venv with everything that runs need
	@echo "Ready: .venv; next: make demo"

demo: $(RUNTIME) ## the whole pipeline in minutes: pretrain, finetune, evaluate, report
	@$(call pipeline,experiment=demo,experiment=demo)

train: $(RUNTIME) ## the whole pipeline at full size; PRETRAIN_ARGS, FINETUNE_ARGS, EVALUATE_ARGS for one stage
	@$(call pipeline,,)

walkforward: $(RUNTIME) ## both phases for every fold of the embedded prices, and one pooled verdict; ARGS as for train
	@$(call pipeline,$(if $(findstring experiment=,$(ARGS)),,experiment=folds),)

collect look pretrain finetune evaluate judge decide explain export sweep: $(RUNTIME)
	@$(RUN) experiments/$@.py $(ARGS)
collect: ## offline data by hand, into one file
look: ## a dry look at the data: calendar, windows, masks, warnings
pretrain: ## phase 1: offline pretraining
finetune: ## phase 2: online fine-tuning, from the newest pretrained weights that fit
evaluate: ## the test window of the newest finished run: baselines, verdict, report
judge: ## a strategy from outside: weights=FILE or returns=FILE on the test window
decide: ## target weights and trades for the latest date in the data
explain: ## why it traded: a card for each day of date=DAY, date=[FIRST,LAST] or top=N
export: $(EXPORT) ## a run's policy as ONNX: run=DIR, out=FILE
sweep: ## the table of a sweep: leaderboard, luck, effects, best.yaml, sweep.html

dashboard: $(DASHBOARD) ## the W&B workspace: its JSON, and saved with ARGS="tracking.wandb.mode=online"
	@$(RUN) experiments/dashboard.py $(ARGS)

docs: $(DOCS) ## the site of docs/, into site/; a link that leads nowhere fails
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet $(ARGS)
	@echo "Built: site/index.html"

configuration: $(RUNTIME) ## docs/configuration.md again, from the schemas and conf/
	@$(RUN) docs/tools/configuration.py

# In the order of their names: the files with the fewest tests have the longest ones, and come last otherwise.
test: lint ## set up, lint, types and tests
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

mutations: $(DEV) ## break each formula of the learners on purpose: the tests named for it must fail; ARGS=WORD for some
	@$(BIN)/python -m benchmarks.mutations $(ARGS)

lint: $(DEV) ## style, types and the direction of imports
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright
	@NO_COLOR=1 $(BIN)/lint-imports --no-logo

parity: $(PARITY) ## losses and learning beside d3rlpy's, in a venv of their own; PENDULUM=1 trains as well
	@OMP_NUM_THREADS=1 .venv-parity/bin/python -m pytest tests/parity $(ARGS)
ifdef PENDULUM
	@OMP_NUM_THREADS=1 .venv-parity/bin/python -m tests.parity.pendulum
endif

bench: $(RUNTIME) $(if $(PEERS),$(PEERS_VENV)) ## updates a second, memory and the cost of the parts; PEERS=1 beside other libraries
	@OMP_NUM_THREADS=1 $(RUN) -m benchmarks.run $(if $(PEERS),--peers) $(ARGS)

olps: $(OLPS) ## classical online portfolio selection on six public sets, through the same ledger; ARGS="--sets msci djia" for some
	@OMP_NUM_THREADS=1 PYTHONUNBUFFERED=1 .venv-olps/bin/python -m benchmarks.olps $(ARGS)

growth: $(DEV) ## how cost and memory grow with assets, batch, quantiles, CQL draws, history, memory, runs side by side
	@OMP_NUM_THREADS=1 $(RUN) -m benchmarks.growth $(ARGS)

profile: $(RUNTIME) ## time and memory of one update of each phase by operator, and traces into outputs/profile; settings in ARGS
	@OMP_NUM_THREADS=1 $(RUN) -m benchmarks.profiler $(ARGS)

clean: ## remove caches and every venv; outputs stay
	@rm -rf .venv .venv-olps .venv-parity .venv-peers .pytest_cache .ruff_cache .hypothesis .import_linter_cache site *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@found=$$($(PYTHON) -c 'import sys; print("%d.%02d" % sys.version_info[:2])' 2>/dev/null) || found=missing; \
	if [[ "$$found" < 3.11 || "$$found" == missing ]]; then \
		echo "error: FinFlow needs Python 3.11 or newer, and $(PYTHON) is $${found/.0/.}; name another: make PYTHON=python3.12" >&2; \
		exit 2; \
	fi; \
	$(PYTHON) -m venv .venv || { rm -rf .venv; exit 2; }

$(RUNTIME): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Setting up .venv"
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet -c constraints.txt -e .
	@touch $@

$(DEV): $(RUNTIME)
	@echo "Setting up the tools for tests"
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

$(DOCS): $(RUNTIME)
	@echo "Setting up the tools for the site"
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	@touch $@

$(DASHBOARD): $(RUNTIME)
	@echo "Setting up wandb-workspaces"
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dashboard]'
	@touch $@

$(EXPORT): $(RUNTIME)
	@echo "Setting up ONNX"
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet -c constraints.txt -e '.[export]'
	@touch $@

# universal-portfolios wants a pandas of its own; everything else is what FinFlow pins.
$(OLPS): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Setting up $(@D)"
	@$(BIN)/python -m venv $(@D)
	@grep -v '^pandas==' constraints.txt > $(@D)/constraints.txt
	@PYTHONWARNINGS=ignore $(@D)/bin/python -m pip install --quiet --upgrade pip
	@PYTHONWARNINGS=ignore $(@D)/bin/python -m pip install --quiet -c $(@D)/constraints.txt -e '.[olps]'
	@touch $@

# d3rlpy wants a Gymnasium of its own; everything else is what FinFlow pins.
$(PARITY): tests/parity/requirements.txt
$(PEERS_VENV): benchmarks/requirements.txt
$(PARITY) $(PEERS_VENV): constraints.txt | $(BIN)/python
	@echo "Setting up $(@D)"
	@$(BIN)/python -m venv $(@D)
	@grep -v '^gymnasium==' constraints.txt > $(@D)/constraints.txt
	@PYTHONWARNINGS=ignore $(@D)/bin/python -m pip install --quiet -r $(filter %requirements.txt,$^) -c $(@D)/constraints.txt
	@touch $@

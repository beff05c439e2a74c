# Two commands a newcomer needs: make demo, make test. Both set up .venv themselves; both may be run again at any time.
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
TORCH  := $(shell sed -n 's/^torch==//p' constraints/cpu.txt)
TRAJECTORIES ?=
# Test processes side by side; each may hold a run of the trainer, some 7 GB.
JOBS   ?= 2
QUICK ?=
# Of an environment that you made with constraints/gpu.txt, or any with torch and transformers.
GPU_PYTHON ?= python
APPEND ?=

.PHONY: help setup test test-fast test-all test-gpu demo replication lint wheel clean
help:
	@echo "make setup      .venv with verl, vLLM and this package, for a CPU"
	@echo "make demo       train with GRPO + context awareness on this machine (TRAJECTORIES=FILE: with your own agent runs)"
	@echo "make replication  every arm with several seeds, a night on two cores (QUICK=1: two seeds, about an hour)"
	@echo "make test       the tests, 20 to 25 minutes on two cores; what make test-all adds proves the same again, at length"
	@echo "make test-fast  make test without the end-to-end runs of the trainer"
	@echo "make test-all   every test that needs no GPU, well over an hour"
	@echo "make test-gpu   a table of what was checked on this machine's GPU (GPU_PYTHON=... names its Python; APPEND=docs/cost.md)"

setup: $(VENV)/.ready
# torch comes first and with its dependencies: a CPU build where the package index has one, PyPI's build otherwise.
$(VENV)/.ready: constraints/cpu.txt pyproject.toml
	command -v $(PYTHON) >/dev/null || { echo "make setup needs $(PYTHON); name another with PYTHON=python3.12"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "pip>=25"
	$(BIN)/python -m pip install --quiet "torch==$(TORCH)"
	$(BIN)/python -m pip install --quiet --no-deps -r constraints/cpu.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

test: setup
	$(BIN)/python -m pytest tests -m "not slow" -n $(JOBS) --dist loadfile --no-loadscope-reorder
test-fast: setup
	$(BIN)/python -m pytest tests -m "not slow and not e2e" -n $(JOBS) --dist loadfile --no-loadscope-reorder
test-all: setup
	$(BIN)/python -m pytest tests -n $(JOBS) --dist loadfile --no-loadscope-reorder
test-gpu:
	$(GPU_PYTHON) tests/gpu/report.py $(if $(APPEND),--append "$(APPEND)",)

demo: setup
	$(BIN)/contextrl demo $(if $(TRAJECTORIES),--trajectories "$(TRAJECTORIES)",)

# Goes on where it was stopped.
replication: setup
	$(BIN)/python -m bench.replication $(if $(QUICK),--quick,)

lint: setup
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports
wheel: setup
	$(BIN)/python -m build --wheel --no-isolation
clean:
	rm -rf $(VENV) dist outputs .pytest_cache

# Everything this project can be asked to do; bare `make` lists it.
#
# Each target gets what it needs on its own: a virtual environment in .venv with the packages of
# pyproject.toml, and for the lab QEMU and a kernel. Stamps in .venv make the second time quick.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-lab test lab bench lint docs coverage
# Two stamps at once would be two pips in one environment.
.NOTPARALLEL:

help:
	@echo "movepages: see where the pages of a process are on a NUMA machine, and move them"
	@echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r target text; \
		do printf '  make %-10s%s\n' "$$target" "$$text"; done

setup: $(VENV)/lint.stamp ## get what the targets below need: packages, QEMU, a kernel
	@$(BIN)/python lab/run setup || { [ $$? = 126 ] && \
		echo "setup: the lab tier is left out (see the line above); the rest is ready"; }

demo: $(VENV)/core.stamp ## move the memory of a live process around four emulated NUMA nodes
	@$(BIN)/python examples/demo.py

demo-lab: $(VENV)/core.stamp ## the same on four nodes of a real kernel, in a virtual machine
	@$(BIN)/python lab/run setup
	@$(BIN)/python lab/run --topology 4node -- python examples/demo.py --real

test: $(VENV)/test.stamp ## run all tests: unit, on this machine's kernel, emulated, in the lab
	@$(BIN)/python tools/tiers.py unit host emulator lab

lab: $(VENV)/test.stamp ## run the tests that need a machine with several nodes, in the lab
	@MOVEPAGES_REQUIRE=lab $(BIN)/python tools/tiers.py lab

soak: $(VENV)/test.stamp ## run what takes too long for every test run; ARGS=PART
	@$(BIN)/python tools/soak.py $(ARGS)

bench: $(VENV)/core.stamp ## measure against C doing the same; ARGS=--json for machines
	@$(BIN)/python benchmarks/run.py $(ARGS)

lint: $(VENV)/lint.stamp ## check style, types, and who imports whom
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

docs: $(VENV)/docs.stamp ## build the documentation into build/docs, warnings being errors
	$(BIN)/sphinx-build -q -W --keep-going -b html docs build/docs
	@echo "docs: build/docs/index.html"

coverage: $(VENV)/test.stamp ## run the unit tier and report which branches it misses
	$(BIN)/coverage run -m pytest -q -m "not host and not emulator and not lab and not labhost"
	$(BIN)/coverage report

# A stamp says that the packages of its group (`core`: of none) are those of pyproject.toml.
$(VENV)/%.stamp: pyproject.toml
	@python=$$(tools/find-python "$(PYTHON)") && "$$python" tools/environment.py $*

# Every target installs what it needs into .venv first; what is installed once is not installed again.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: install demo test test-slow test-slurm chaos bench peers lint clean help
help:
	@echo "make install    into .venv; every other target does it by itself"
	@echo "make demo       shard, train with 2 processes, validate, evaluate, report (minutes)"
	@echo "make test       the default tests"
	@echo "make test-slow  the long ones: nine kills, the whole demo"
	@echo "make chaos      a hundred kills at random moments, with 1, 2 and 3 processes (half an hour)"
	@echo "make test-slurm on a real Slurm, which slurm/dev-cluster starts on this machine"
	@echo "make bench      speed, as ratios against named peers or limits"
	@echo "make peers      what \`make bench\` compares with beside webdataset: litdata, mosaicml-streaming"
	@echo "make lint       ruff"

$(READY): pyproject.toml constraints.txt
	@echo "installing into .venv: about 5 GB, a minute or more"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $(READY)

install: $(READY)

demo: $(READY)
	$(BIN)/python -m distgan.launchers.local.demo

test: $(READY)
	$(BIN)/python -m pytest

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

test-slurm: $(READY)
	slurm/dev-cluster up
	$(BIN)/python -m pytest -m slurm -n 0

chaos: $(READY)
	$(BIN)/python tests/programs/chaos.py

bench: $(READY)
	$(BIN)/python -m bench

peers: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,bench]'
	$(BIN)/python -m pip install --quiet --no-deps mosaicml-streaming==0.13.0

lint: $(READY)
	$(BIN)/ruff check .

clean:
	rm -rf .venv build *.egg-info

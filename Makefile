# Every target installs what it needs into .venv first; what is installed once is not installed again.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
TESTED := .venv/.ready-test

.PHONY: install demo test test-gate test-all test-extras test-slurm test-smoke chaos bench peers lint clean help
help:
	@echo "make install    what users need, into .venv; every other target does it by itself"
	@echo "make demo       shard, train with 2 processes, validate, evaluate, report (minutes)"
	@echo "make test       while you work: tests/unit and tests/process/quick (at most 4 minutes on 2 idle cores)"
	@echo "make test-gate  what .ci/run has beside it: the rest of tests/process, and what costs seconds"
	@echo "make test-smoke three tests on a real Slurm, which slurm/dev-cluster starts on this machine"
	@echo "make test-slurm all of them"
	@echo "make test-extras distgan.Loader in Lightning, scores of speech by networks: what both need goes into .venv-extras"
	@echo "make test-all   everything: unit, process, nightly, slurm (hours)"
	@echo "make chaos      a hundred kills at random moments, with 1, 2 and 3 processes (half an hour)"
	@echo "make bench      speed, as ratios against named peers or limits"
	@echo "make peers      what \`make bench\` compares with beside webdataset: litdata, mosaicml-streaming"
	@echo "make lint       ruff and mypy"

$(READY): pyproject.toml constraints.txt
	@echo "installing into .venv: about 5 GB, a minute or more"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[scores]'
	touch $(READY)

# What tests, lint and benchmarks need beside it.
$(TESTED): $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $(TESTED)

install: $(READY)

demo: $(READY)
	$(BIN)/python -m distgan.launchers.local.demo

test: $(TESTED)
	@cut -d' ' -f1-3 /proc/loadavg 2> /dev/null | sed 's/^/load before: /' || true
	time $(BIN)/python -m pytest

test-gate: $(TESTED)
	time $(BIN)/python -m pytest tests/unit tests/process -m 'gate and not nightly'

test-smoke test-slurm: $(TESTED)
	slurm/dev-cluster up
	time $(BIN)/python -m pytest tests/slurm -n 0 -m $(if $(filter test-smoke,$@),smoke,slurm)

test-all: $(TESTED)
	time $(BIN)/python -m pytest tests/unit tests/process tests/nightly -m 'not slurm'
	$(MAKE) test-extras test-slurm

# distgan.Loader in Lightning, and speech scores with the packages that they are compared with, in an
# environment that sees .venv. Of Resemblyzer only a file is read, so none of what its code needs.
EXTRAS := .venv-extras
PURELIB := -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
$(EXTRAS)/.ready: $(TESTED)
	test -x $(EXTRAS)/bin/python || $(PYTHON) -m venv $(EXTRAS)
	echo "import site; site.addsitedir('$$($(BIN)/python $(PURELIB))')" > "$$($(EXTRAS)/bin/python $(PURELIB))/venv.pth"
	$(EXTRAS)/bin/python -m pip install --quiet --constraint constraints.txt lightning speechmos onnxruntime librosa
	$(EXTRAS)/bin/python -m pip install --quiet --no-deps Resemblyzer==0.1.4
	touch $@

test-extras: $(EXTRAS)/.ready
	time $(EXTRAS)/bin/python -m pytest -n 0 tests/nightly/test_lightning.py tests/nightly/test_speech_scores.py -m nightly

chaos: $(TESTED)
	$(BIN)/python tests/programs/chaos.py

bench: $(TESTED)
	$(BIN)/python -m bench

peers: $(TESTED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,bench]'
	$(BIN)/python -m pip install --quiet --no-deps mosaicml-streaming==0.13.0

lint: $(TESTED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv .venv-extras build *.egg-info

# Every target needs Python 3.11 or newer and make, nothing else: it installs into .venv first.
PYTHON ?= python3
VENV   ?= .venv
CONFIG ?= workflow/config/demo.yaml
CORES  ?= 2
export PATH := $(abspath $(VENV))/bin:$(PATH)
export PYTHONUNBUFFERED := 1
DONE   := $(VENV)/.installed

.PHONY: help install demo papers grid plan test test-fast lab bench nbs clean
help:
	@echo "make demo       a first table: one synthetic data set, nine models (4 minutes on two cores, after installation)"
	@echo "make papers     every table, figure and study of the papers, at the size of two cores (12 minutes)"
	@echo "make grid CONFIG=workflow/config/msmae.yaml    the same for another configuration"
	@echo "make plan CONFIG=workflow/config/msmae.yaml    its jobs, and an estimate of the hours on this machine"
	@echo "make test       every notebook and every test, the style included"
	@echo "make test-fast  a part of the tests, in two minutes: no notebooks, no grid, no training, no whole twins"
	@echo "make lab        JupyterLab"
	@echo "make bench      run the benchmark notebooks and print their tables"
	@echo "make nbs        format, export, execute and clean the notebooks after editing them"
	@echo "make clean      remove runs, twins and caches (the installation stays)"

install: $(DONE)
$(DONE): requirements.lock settings.ini setup.py
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'emo_lib needs Python 3.11 or newer, this is ' + sys.version.split()[0])"
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo papers: $(DONE)
	emo run workflow/config/$@.yaml --cores $(CORES)

grid: $(DONE)
	emo run $(CONFIG) --cores $(CORES)

plan: $(DONE)
	emo plan $(CONFIG) --cores $(CORES)

test: $(DONE)
	python -m pytest --numprocesses 2 --dist loadscope

test-fast: $(DONE)
	python -m pytest --numprocesses 2 --dist loadscope tests -m "not slow"

lab: $(DONE)
	jupyter lab

bench: $(DONE)
	for book in nbs/bench/*.ipynb; do jupyter execute --inplace --timeout=3600 $$book && nbdev_clean --fname $$book && python scripts/show_output.py $$book || exit 1; done

nbs: $(DONE)
	ruff check --fix --select I . && ruff format .
	nbdev_export
	python scripts/execute.py
	nbdev_clean
	python scripts/readme.py

clean:
	rm -rf runs data/twins .snakemake .pytest_cache .ruff_cache

# `make demo` and `make test` need Python 3.11 or newer and make, nothing else: they install into .venv first.
PYTHON ?= python3
VENV   ?= .venv
CONFIG ?= workflow/config/demo.yaml
CORES  ?= 2
export PATH := $(abspath $(VENV))/bin:$(PATH)
export PYTHONUNBUFFERED := 1
DONE   := $(VENV)/.installed

.PHONY: help install demo grid plan test lab bench nbs clean
help:
	@echo "make demo   twins, features, every model, Tables II and III, Figures 3 to 7 (11 minutes on two idle cores, after installation)"
	@echo "make grid CONFIG=workflow/config/paper.yaml    the same for another configuration"
	@echo "make plan CONFIG=workflow/config/paper.yaml    its jobs, and an estimate of the hours on this machine"
	@echo "make test   every notebook and every test"
	@echo "make lab    JupyterLab on the walkthroughs"
	@echo "make bench  run the benchmark notebooks and print their tables"
	@echo "make nbs    export, execute and clean the notebooks after editing them"
	@echo "make clean  remove runs, twins and caches (the installation stays)"

install: $(DONE)
$(DONE): requirements.lock settings.ini setup.py
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'emo_lib needs Python 3.11 or newer, this is ' + sys.version.split()[0])"
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: grid
grid: $(DONE)
	snakemake --cores $(CORES) --configfile $(CONFIG)
	@cat reports/$$(sed -n 's/^name: *//p' $(CONFIG))/table2.md

plan: $(DONE)
	emo plan $(CONFIG) --cores $(CORES)

test: $(DONE)
	python -m pytest

lab: $(DONE)
	jupyter lab nbs

bench: $(DONE)
	for book in nbs/bench/*.ipynb; do jupyter execute --inplace --timeout=3600 $$book && nbdev_clean --fname $$book && python scripts/show_output.py $$book || exit 1; done

nbs: $(DONE)
	nbdev_export
	python scripts/execute.py
	nbdev_clean
	python scripts/readme.py

clean:
	rm -rf runs data/twins .snakemake .pytest_cache

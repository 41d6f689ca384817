# Everything installs itself on first use: uv from PATH or into .uv/, then .venv/. Needs bash, python3 >= 3.11 and pip.
SHELL := bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint wheel lock clean

UV := $(shell uv --version >/dev/null 2>&1 && echo uv || echo $(CURDIR)/.uv/bin/uv)
ENVIRONMENT := .venv/.installed

# Without byte code every start of torch takes 9 s of processor time, with it 4.
unexport PYTHONDONTWRITEBYTECODE PYTHONPATH VIRTUAL_ENV

help:  ## show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

demo: $(ENVIRONMENT)  ## train a small 2S-RN and print its table (3 minutes on two cores, 10 without bf16)
	OMP_NUM_THREADS=1 .venv/bin/zoo train experiment=demo hydra.run.dir=outputs/demo/train
	.venv/bin/zoo eval experiment=demo ckpt_path=outputs/demo/train/checkpoints/best.ckpt hydra.run.dir=outputs/demo
	.venv/bin/zoo report outputs/demo --output outputs/demo/report.html

test: lint  ## lint, then run the tests in two processes
	.venv/bin/python -m pytest -n 2 --dist loadfile

lint: $(ENVIRONMENT)  ## check style and formatting
	.venv/bin/ruff check
	.venv/bin/ruff format --check

wheel: $(ENVIRONMENT)  ## try our wheel and two plugins' in a clean environment outside the checkout
	UV=$(UV) bash tools/check_wheel.sh

lock: $(ENVIRONMENT)  ## renew constraints.txt
	$(UV) pip compile pyproject.toml --universal --python-version 3.11 --upgrade --all-extras --group dev --quiet \
	  --no-header --no-annotate --no-emit-index-url --no-emit-find-links --output-file .venv/constraints.txt
	@if grep -n '://' .venv/constraints.txt; then echo "constraints.txt must hold names and versions only" >&2; exit 1; fi
	mv .venv/constraints.txt constraints.txt

clean:  ## remove environments, builds and caches (keeps outputs/)
	rm -rf .venv .uv dist build .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(ENVIRONMENT): pyproject.toml constraints.txt hatch_build.py | $(filter %/.uv/bin/uv,$(UV))
	$(UV) venv --quiet --allow-existing --seed --no-python-downloads --python '>=3.11' .venv
	$(UV) pip install --python .venv --constraint constraints.txt --group dev --editable '.[geometry,milvus,parquet,serve,launchers,onnx]'
	touch $@

$(CURDIR)/.uv/bin/uv:
	python3 -m venv .uv && .uv/bin/python -m pip install --quiet uv || python3 -m pip install --quiet --target .uv uv

# make demo   install the requirements, then train, test and report on the embedded phantom data set
# make test   install the development tools, lint, run all tests
# make lock   write requirements.lock: every package of constraints.txt and what they need, with hashes
# make sbom   write sbom.json: every package that is installed in .venv, with version and licence (CycloneDX)
# make clean  remove the files that demo and test made; your data and runs stay

PYTHON ?= python3
VENV ?= .venv
DEMO_DIR ?= demo
DEMO_FLAGS ?=
PIP_FLAGS ?= --quiet --disable-pip-version-check

BIN := $(VENV)/bin
READY := $(VENV)/.runtime
READY_DEV := $(VENV)/.development

.PHONY: demo test lint lock sbom clean

demo: $(READY)
	$(BIN)/python train.py --dataset phantom --root_path $(DEMO_DIR)/data --output_dir $(DEMO_DIR)/run --force $(DEMO_FLAGS)
	$(BIN)/python test.py --dataset phantom --root_path $(DEMO_DIR)/data --output_dir $(DEMO_DIR)/run --force --debug --is_savenii

test: lint
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

lint: $(READY_DEV)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .

sbom: $(READY)
	$(PYTHON) -m venv $(VENV)-sbom
	$(VENV)-sbom/bin/python -m pip install $(PIP_FLAGS) cyclonedx-bom
	$(VENV)-sbom/bin/cyclonedx-py environment $(BIN)/python --output-file sbom.json

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "Python 3.10 or newer is needed; name one with make PYTHON=..."; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(READY): requirements.txt constraints.txt | $(VENV)/bin/python
	@echo "Installing PyTorch and the rest into $(VENV): a few minutes, a few GB"
	$(BIN)/python -m pip install $(PIP_FLAGS) -r requirements.txt -c constraints.txt
	@touch $@

$(READY_DEV): requirements-dev.txt requirements-export.txt $(READY)
	$(BIN)/python -m pip install $(PIP_FLAGS) -r requirements-dev.txt -c constraints.txt
	@touch $@

lock: | $(VENV)/bin/python
	$(BIN)/python -m pip install $(PIP_FLAGS) uv
	$(BIN)/uv pip compile requirements-dev.txt requirements-app.txt -c constraints.txt --universal --python-version 3.10 --generate-hashes --quiet \
	  --custom-compile-command "make lock" --output-file requirements.lock

clean:
	rm -rf $(VENV) $(VENV)-sbom sbom.json $(DEMO_DIR) .pytest_cache .ruff_cache

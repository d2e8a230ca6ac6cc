# make chat       chat with the bundled model; MODEL=file.gguf takes another, ARGS="--temp 0" passes options on
# make test       run the tests; ARGS="-k nf4" passes options on
# make lint       check style and the arrows between the packages
# make bench      measure against llama.cpp; ARGS="--llama-python PATH --types Q4_0" passes options on (hours without)
# make encoders-full   all encoders against ggml's own code; REFQUANT_GGML_BASE names its library
# make readme     bring the tables of README.md up to date
# make clean      remove everything that was made here
#
# Each makes .venv on its first call, and again after pyproject.toml changes. PYTHON=python3.13 picks the interpreter.
# What the installation says goes to stderr: `echo 'What is malloc?' | make chat` prints the answer and nothing else.

PYTHON ?= python3
VENV := .venv
RUN := @$(VENV)/bin/python

help:
	@sed -n 's/^# \(make .*\)/\1/p' $(MAKEFILE_LIST)

chat: $(VENV)/chat.stamp
	$(RUN) -m runtime.chat $(MODEL) $(ARGS)

test: $(VENV)/test.stamp
	$(RUN) -m pytest $(ARGS)

lint: $(VENV)/test.stamp
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	$(RUN) -m pytest tests/test_architecture.py

bench: $(VENV)/chat.stamp
	$(RUN) -m benchmarks.against_llama_cpp $(ARGS)

encoders-full: $(VENV)/test.stamp
	@PYTHONPATH=.:tests $(VENV)/bin/python tests/encoder_sweep.py

readme: $(VENV)/test.stamp
	@PYTHONPATH=. $(VENV)/bin/python tests/readme.py

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp for each extra of pyproject.toml. Without the chat extra the rest still works, so nothing is installed early.
$(VENV)/%.stamp: pyproject.toml | $(VENV)/bin/pip
	@echo "Installing refquant[$*] into $(VENV) ..." >&2
	@$(VENV)/bin/python -m pip --disable-pip-version-check install --quiet --editable '.[$*]' </dev/null >&2
	@touch $@

$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' </dev/null \
	  || { echo "refquant needs Python 3.11 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV) </dev/null >&2 \
	  || { rm -rf $(VENV); echo "No virtual environment: on Debian and Ubuntu, apt install python3-venv" >&2; exit 1; }

.PHONY: help chat test lint bench encoders-full readme clean

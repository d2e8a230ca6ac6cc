# make chat       chat with the bundled model; MODEL=file.gguf takes another, ARGS="--temp 0" passes options on
# make test       run the tests; ARGS="-k nf4" passes options on
# make tiers      the tests of the runtime under AVX2, under the portable tier, and with every load and store checked
# make lint       check style and the arrows between the packages
# make bench      measure against llama.cpp; ARGS="--llama-python PATH --types Q4_0" passes options on (hours without)
# make bench-avx2       the same with AVX2 alone; LLAMA_AVX2 is a folder with a llama.cpp library built without AVX512
# make bench-matvec    GB/s of each type for one token, against a plain read of as many bytes
# make bench-formats   encode and decode of a matrix, against the fastest package of others; needs `make peers`
# make bench-gptq      GPTQ of a layer, against gptqmodel and llm-compressor; PYTHON_PEERS names a Python that has them
# make bench-awq       the AWQ search of a block, against AutoAWQ; the same Python
# make bench-quantize  whole model files, against llama.cpp's quantizer; ARGS="--llama-python PATH"
# make bench-pipeline  whole folders through GPTQ and to GGUF: seconds and memory
# make quality    what every method costs the test models: docs/quality.md and its plot; goes on where it was killed
# make peers      install other people's packages into .venv-peers, and compare every format with them
# make method-peers    the same weights through the methods of others: docs/method-peers.md; the Python of bench-gptq
# make conformance     run the vectors against every backend that installs here, and say why others do not; BACKEND=torch picks one
# make vectors    write conformance/vectors anew after a rule has changed
# make mutants    put small faults into refquant, one at a time: which do the vectors not notice? ARGS="--only gguf/*"
# make neon       the kernels for AArch64 on an emulator; needs root, debootstrap and qemu-user
# make encoders-full   all encoders against ggml's own code; REFQUANT_GGML_BASE names its library
# make readme     bring the tables of README.md up to date
# make clean      remove everything that was made here
#
# Each makes .venv on its first call, and again after pyproject.toml changes. PYTHON=python3.13 picks the interpreter.
# What the installation says goes to stderr: `echo 'What is malloc?' | make chat` prints the answer and nothing else.

PYTHON ?= python3
VENV := .venv
RUN := @$(VENV)/bin/python
PEERS := .venv-peers
PYTHON_PEERS ?= $(PEERS)/bin/python
PEER_NAMES := torch,bitsandbytes,compressed_tensors,torchao,onnx,onnxruntime,hqq,auto_round,ml_dtypes,gguf,transformers,accelerate,tokenizers

help:
	@sed -n 's/^# \(make .*\)/\1/p' $(MAKEFILE_LIST)

chat: $(VENV)/chat.stamp
	$(RUN) -m runtime.chat $(MODEL) $(ARGS)

test: $(VENV)/test.stamp
	$(RUN) -m pytest $(ARGS)

tiers: $(VENV)/test.stamp
	@for tier in avx2 portable; do REFQUANT_SIMD=$$tier $(VENV)/bin/python -m pytest tests/runtime $(ARGS) || exit 1; done
	@REFQUANT_CHECKED=1 $(VENV)/bin/python -m pytest tests/runtime $(ARGS)

lint: $(VENV)/test.stamp
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	$(RUN) -m pytest tests/test_architecture.py

bench: $(VENV)/chat.stamp
	$(RUN) -m benchmarks.against_llama_cpp $(ARGS)

bench-avx2: $(VENV)/chat.stamp
	@REFQUANT_SIMD=avx2 $(VENV)/bin/python -m benchmarks.against_llama_cpp --llama-lib $(LLAMA_AVX2) -p 256 -n 32 \
	  --first-token 0 $(ARGS)

bench-matvec: $(VENV)/chat.stamp
	$(RUN) -m benchmarks.matvec $(ARGS)

bench-quantize: $(VENV)/chat.stamp
	$(RUN) -m benchmarks.quantize_speed $(ARGS)

bench-formats: $(PEERS)/peers.stamp
	@$(PYTHON_PEERS) -m benchmarks.formats $(ARGS)

bench-gptq: $(PEERS)/peers.stamp
	@$(PYTHON_PEERS) -m benchmarks.gptq $(ARGS)

bench-awq: $(PEERS)/peers.stamp
	@$(PYTHON_PEERS) -m benchmarks.awq $(ARGS)

method-peers: $(PEERS)/peers.stamp
	@$(PYTHON_PEERS) -m benchmarks.method_peers --write docs/method-peers.md

bench-pipeline: $(VENV)/chat.stamp
	$(RUN) -m benchmarks.pipeline $(ARGS)

quality: $(VENV)/quality.stamp
	@OPENBLAS_NUM_THREADS=1 $(VENV)/bin/python -m benchmarks.quality $(ARGS)

peers: $(PEERS)/peers.stamp
	@REFQUANT_PEERS=$(PEER_NAMES) $(PYTHON_PEERS) -m pytest tests/refquant/peers $(ARGS)

conformance: $(PEERS)/backends.stamp
	@$(PYTHON_PEERS) -m conformance $(if $(BACKEND),run --backend $(BACKEND),all) $(ARGS)

vectors: $(VENV)/test.stamp
	$(RUN) -m conformance generate

mutants: $(VENV)/test.stamp
	@OPENBLAS_NUM_THREADS=1 $(VENV)/bin/python -m conformance mutants $(ARGS)

neon:
	@tests/emulated_arm.sh .arm $(ARGS)

encoders-full: $(VENV)/test.stamp
	@PYTHONPATH=.:tests $(VENV)/bin/python tests/encoder_sweep.py

readme: $(VENV)/test.stamp
	@PYTHONPATH=. $(VENV)/bin/python tests/readme.py

clean:
	rm -rf $(VENV) $(PEERS) .arm build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp for each extra of pyproject.toml. Without the chat extra the rest still works, so nothing is installed early.
$(VENV)/%.stamp: pyproject.toml | $(VENV)/bin/pip
	@echo "Installing refquant[$*] into $(VENV) ..." >&2
	@$(VENV)/bin/python -m pip --disable-pip-version-check install --quiet --editable '.[$*]' </dev/null >&2
	@touch $@

$(PEERS)/peers.stamp: tests/peers.txt pyproject.toml
	@$(PYTHON) -m venv --clear $(PEERS) </dev/null >&2
	@echo "Installing other people's packages into $(PEERS) ..." >&2
	@$(PEERS)/bin/python -m pip --disable-pip-version-check install --quiet -r tests/peers.txt --editable '.[test]' \
	  </dev/null >&2
	@touch $@

# Packages that do not install everywhere, one by one: what is absent is skipped, and said.
$(PEERS)/backends.stamp: tests/backends.txt $(PEERS)/peers.stamp
	@grep -v '^#' tests/backends.txt | while read -r line; do \
	  $(PEERS)/bin/python -m pip --disable-pip-version-check install --quiet $$line </dev/null >&2 \
	  || echo "conformance: $$line does not install here" >&2; done
	@touch $@

$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' </dev/null \
	  || { echo "refquant needs Python 3.11 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV) </dev/null >&2 \
	  || { rm -rf $(VENV); echo "No virtual environment: on Debian and Ubuntu, apt install python3-venv" >&2; exit 1; }

.PHONY: help chat test lint bench bench-matvec bench-quantize bench-formats bench-gptq peers conformance neon encoders-full readme
.PHONY: clean tiers vectors quality mutants bench-awq bench-avx2 bench-pipeline method-peers

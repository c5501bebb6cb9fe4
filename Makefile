# All the set-up there is: `make demo` to see the gateway work, `make test` to check it.
#
# Everything goes into a virtual environment in .venv, made on first use. PYTHON=... chooses the interpreter (3.11 or newer), VENV=... the
# place. As root on Debian, missing system packages are installed; otherwise you are told which.

VENV ?= .venv
PYTHON ?=
# Seconds that each of the two test runs may take.
TEST_LIMIT ?= 900

BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test test-unit test-street lint bench docs clean help

help:
	@echo 'make demo    install into $(VENV) and start the gateway on 127.0.0.1:8080 with two sample backends'
	@echo 'make test    run all tests (trial a3sgw, trial tests)'
	@echo 'make lint    ruff and mypy'
	@echo 'make bench   measure CPU per request beside nginx'
	@echo 'make docs    generate the configuration reference'
	@echo 'make clean   remove what was built, and $(VENV) if make created it'

demo: $(VENV)/.stamp-run
	@exec $(BIN)/a3s-gateway demo $(if $(LISTEN),--listen $(LISTEN))

# Both runs always happen, so that one report shows everything; the worse result counts.
test: $(VENV)/.stamp-test $(VENV)/.stamp-peers
	@.ci/trial $(BIN) $(TEST_LIMIT) a3sgw tests

test-unit: $(VENV)/.stamp-test
	@.ci/trial $(BIN) $(TEST_LIMIT) a3sgw

test-street: $(VENV)/.stamp-test $(VENV)/.stamp-peers
	@.ci/trial $(BIN) $(TEST_LIMIT) tests

lint: $(VENV)/.stamp-lint
	$(BIN)/ruff check .
	$(BIN)/mypy a3sgw tests contrib/bench contrib/example-plugin/a3sgw_example twisted/plugins/a3sgw_plugin.py

bench: $(VENV)/.stamp-run $(VENV)/.stamp-peers
	$(BIN)/python -m contrib.bench

docs: $(VENV)/.stamp-run
	$(BIN)/a3s-gateway reference > docs/configuration.md

clean:
	rm -rf build dist *.egg-info _trial_temp* .mypy_cache .ruff_cache .hypothesis twisted/plugins/dropin.cache
	find a3sgw tests twisted contrib -name __pycache__ -type d -prune -exec rm -rf {} +
	if test -e $(VENV)/.stamp-venv; then rm -rf $(VENV); fi

# -- the virtual environment ----------------------------------------------------------------------------------------------------------

$(VENV)/.stamp-venv:
	@.ci/make-venv $(VENV) $(PYTHON)
	@touch $@

$(VENV)/.stamp-run: $(VENV)/.stamp-venv setup.py pyproject.toml
	$(PIP) install --editable .
	@touch $@

$(VENV)/.stamp-test: $(VENV)/.stamp-venv setup.py pyproject.toml
	$(PIP) install --editable '.[test]'
	@touch $@

$(VENV)/.stamp-lint: $(VENV)/.stamp-venv setup.py pyproject.toml
	$(PIP) install --editable '.[test,dev]'
	@touch $@

# Real servers and clients that the street tests talk to.
$(VENV)/.stamp-peers: .ci/peers $(VENV)/.stamp-venv
	@.ci/peers
	@touch $@

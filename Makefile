# Everything is in dev.py, which runs where there is no make: python dev.py demo|test|test-long|bench|install
PYTHON ?= python3
ARGS ?=

.PHONY: help demo test test-long bench install
help:
	@$(PYTHON) dev.py --help

demo test test-long bench install:
	@$(PYTHON) dev.py $@ $(ARGS)

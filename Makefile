# One entry per task. `make demo` and `make test` prepare all they need on a fresh Debian 12 or 13.
.DEFAULT_GOAL := help
PY := .venv/bin/python

.PHONY: help setup setup-lab demo test test-labs test-rooms test-fast test-full check format lock deb clean

help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | column -t -s "$$(printf '\t')"

setup: ## Prepare .venv only
	@tests/prepare.sh

setup-lab: ## Prepare .venv and what the lab needs (root)
	@tests/prepare.sh lab

demo: ## A mesh of real hosts in namespaces, shown and verified (root; KEEP=1 leaves it up)
	@echo "make demo: needs root, about 3 GB of disk and 5 minutes the first time (2 later); builds .venv and a root filesystem, then runs a mesh of four hosts inside namespaces of its own."
	@tests/prepare.sh lab
	@.venv/bin/hostmesh-lab demo $(if $(KEEP),--keep)

test: ## The whole suite, real dockerds included (root)
	@tests/prepare.sh lab
	@echo "make test: labs and rooms side by side, a quarter of an hour and more; each speaks when it is done."
	@$(MAKE) --no-print-directory -j 2 --output-sync=target test-labs test-rooms

# Side by side: a lab waits more than it computes. What each says comes when it is done.
test-labs:
	$(PY) -m pytest -m "engine and not full" --durations=15

test-rooms:
	$(PY) -m pytest -m "not engine and not full" --durations=15

test-full: ## The whole matrix, long outages and soak too (root; run before an issue is called resolved)
	@tests/prepare.sh lab
	$(PY) -m pytest

test-fast: ## Without root: unit and property tests
	@tests/prepare.sh
	$(PY) -m pytest -q -m "unit or property"

check: ## Lint, types and import rules
	@tests/prepare.sh
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

format: ## Put the code into the house's format
	@tests/prepare.sh
	.venv/bin/ruff check --fix-only .
	.venv/bin/ruff format .

deb: ## Debian packages for bookworm, trixie and forky in dist/ (root; SUITE=trixie for one)
	@tests/prepare.sh lab
	@$(PY) -m deploy.deb.build --suite $(or $(SUITE),all)

lock: ## Resolve the dependencies anew and write both lock files
	.venv/bin/uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-header \
	    --no-emit-index-url --no-emit-find-links pyproject.toml -o requirements.lock
	.venv/bin/uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-header \
	    --no-emit-index-url --no-emit-find-links --extra dev -c requirements.lock pyproject.toml -o requirements-dev.lock

clean: ## Remove what make made in this clone (caches outside it stay: hostmesh-lab image --purge)
	rm -rf .venv build dist *.egg-info tests/lab/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

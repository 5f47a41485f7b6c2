# One entry per task. `make demo` and `make test` prepare all they need on a fresh Debian 12 or 13.
.DEFAULT_GOAL := help
PY := .venv/bin/python

.PHONY: help setup setup-lab demo test test-unit test-property test-engines test-labs test-namespaces test-firewall test-etcd test-fast test-full bench bench-full bench-check soak check format lock deb release picture clean

help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | column -t -s "$$(printf '\t')"

setup: ## Prepare .venv only
	@tests/prepare.sh

setup-lab: ## Prepare .venv and what the lab needs (root)
	@tests/prepare.sh lab

demo: ## A mesh of real hosts in namespaces, shown and verified (root; KEEP=1 leaves it up, TOPOLOGY=two-lans BACKEND=vxlan)
	@echo "make demo: needs root, about 3 GB of disk and 5 minutes the first time (2 later); builds .venv and a root filesystem, then runs a mesh of four hosts inside namespaces of its own."
	@tests/prepare.sh lab
	@.venv/bin/hostmesh-lab demo $(if $(KEEP),--keep) $(if $(TOPOLOGY),--topology $(TOPOLOGY)) $(if $(BACKEND),--backend $(BACKEND))

test: ## What every change must pass, on real etcd, dockerds and kernel (root; a quarter of an hour)
	@tests/prepare.sh lab
	@echo "make test: first unit and property tests (2 minutes); then labs and engines (real dockerds), namespaces,"
	@echo "  firewall and etcd, three at a time. Each prints its progress here, and its whole output when it ends."
	@$(GROUPS)

test-full: export NOT_FULL :=
test-full: ## The whole matrix, long outages and soak too (root; hours; run before an issue is called resolved)
	@tests/prepare.sh full
	@$(GROUPS)

# The longest first, three at a time: a lab waits more than it computes. A failed group ends no other.
define GROUPS
status=0; \
$(MAKE) --no-print-directory -k -j 2 --output-sync=target test-unit test-property 9>&2 || status=1; \
$(MAKE) --no-print-directory -k -j 3 --output-sync=target \
    test-labs test-namespaces test-engines test-firewall test-etcd 9>&2 || status=1; \
exit $$status
endef

# Descriptor 9 is the terminal, past output-sync.
RUN = $(PY) -m pytest -p tests.progress --progress-fd=9 --durations=15
NOT_FULL ?= and not full
NAMESPACES = not unit and not property and not engine and not etcd $(NOT_FULL)

test-unit:
	@$(RUN) --progress=unit -m "unit $(NOT_FULL)"

test-property:
	@$(RUN) --progress=property -m "property and not unit $(NOT_FULL)"

ENGINES = tests/engine/docker tests/engine/boot

test-engines:
	@$(RUN) --progress=engines -m "engine $(NOT_FULL)" $(ENGINES)

test-labs:
	@LAB_PLACE=2 $(RUN) --progress=labs -m "engine $(NOT_FULL)" $(ENGINES:%=--ignore=%)

test-namespaces:
	@$(RUN) --progress=namespaces -m "$(NAMESPACES)" --ignore=tests/netns/firewall

test-firewall:
	@$(RUN) --progress=firewall -m "$(NAMESPACES)" tests/netns/firewall

test-etcd:
	@$(RUN) --progress=etcd -m "etcd and not unit and not property and not engine $(NOT_FULL)"

test-fast: ## Without root: unit and property tests
	@tests/prepare.sh
	$(PY) -m pytest -q -m "(unit or property) and not full"

BENCH_OPTIONS = $(if $(ONLY),--only $(ONLY)) $(if $(ROUNDS),--rounds $(ROUNDS))

bench: ## Measure the quick figures beside their limits and peers (root, a quiet machine; ten minutes; ONLY="NAME NAME")
	@tests/prepare.sh bench
	@$(PY) -m tests.bench $(BENCH_OPTIONS)

bench-full: ## Measure every figure in full (root, a quiet machine; two hours; ONLY="NAME NAME")
	@tests/prepare.sh bench
	@$(PY) -m tests.bench --full $(BENCH_OPTIONS)

bench-check: ## Measure the quick figures and fail where one is worse than docs/figures (root; ONLY="NAME NAME")
	@tests/prepare.sh bench
	@$(PY) -m tests.bench --check $(BENCH_OPTIONS)

soak: ## Walk over a lab at random, under pings, for HOURS=8; SEED=42 repeats a walk (root)
	@tests/prepare.sh lab
	$(PY) -m tests.soak --hours $(or $(HOURS),1) $(if $(SEED),--seed $(SEED))

check: ## Lint, types, import rules, folders, words and docs
	@tests/prepare.sh
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	$(PY) -m pytest -q --noconftest tests/house

format: ## Format the code as `make check` wants it
	@tests/prepare.sh
	.venv/bin/ruff check --fix-only .
	.venv/bin/ruff format .

deb: ## Debian packages for bookworm, trixie and forky in dist/ (root; SUITE=trixie for one, ARCH=arm64)
	@tests/prepare.sh lab
	@$(PY) -m deploy.deb.build --suite $(or $(SUITE),all) $(if $(ARCH),--arch $(ARCH))

release: ## Packages, tarball, apt repository, bill of materials and checksums in dist/ (root; SUITE=trixie, ARCH="amd64 arm64", KEY=ID signs)
	@tests/prepare.sh lab
	@$(PY) -m deploy.release.build --suite $(or $(SUITE),all) $(if $(ARCH),--arch $(ARCH)) $(if $(KEY),--key $(KEY))

lock: ## Resolve the dependencies anew and write both lock files
	.venv/bin/uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-header \
	    --no-emit-index-url --no-emit-find-links pyproject.toml -o requirements.lock
	.venv/bin/uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-header \
	    --no-emit-index-url --no-emit-find-links --extra dev -c requirements.lock pyproject.toml -o requirements-dev.lock

picture: ## Draw docs/*.svg anew (graphviz)
	for name in architecture mesh; do \
	    dot -Tsvg docs/$$name.dot -o docs/$$name.svg && \
	    echo "<!-- $$(sha256sum < docs/$$name.dot | cut -d ' ' -f 1) -->" >> docs/$$name.svg; done

clean: ## Remove what make made in this clone (caches outside it stay: hostmesh-lab image --purge)
	rm -rf .venv build dist *.egg-info tests/lab/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

# Two commands matter: `make up` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

NODES ?= 3
SUITE ?= trixie
EDGE_HTTPS_PORT ?= 8443
EDGE_HTTP_PORT ?= 8080
BED_API_PORT ?= 16443
SCENARIO ?= default
# Empty: the stand-in for k3s that is built here. A release such as v1.36.4+k3s1: the real thing, from the Internet.
K3S ?=
PYTHON ?= python3
export EDGE_HTTPS_PORT EDGE_HTTP_PORT BED_API_PORT

BIN := .venv/bin
BED := $(BIN)/python testbed/bed.py
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)
export MYPY_CACHE_DIR ?= $(CACHE)/abaci-infra/mypy
# Root with a home of its own, but with this user's cache, which bed.py hands back. The ports, for a sudo that knows no -E.
SUDO := $(if $(filter 0,$(shell id -u)),,sudo -EH env XDG_CACHE_HOME="$(CACHE)" PYTHONDONTWRITEBYTECODE=1 \
	EDGE_HTTPS_PORT=$(EDGE_HTTPS_PORT) EDGE_HTTP_PORT=$(EDGE_HTTP_PORT) BED_API_PORT=$(BED_API_PORT))
# The tests have a bed of their own: other names, ports and networks than `make up`.
TEST_BED := env EDGE_HTTPS_PORT=18443 EDGE_HTTP_PORT=18080 BED_API_PORT=26443 BED_NAME=test
MOLECULE := env MOLECULE_GLOB='molecule/*/molecule.yml' EDGE_HTTPS_PORT=28443 EDGE_HTTP_PORT=28080 \
	BED_API_PORT=36443 BED_NAME=molecule
# So has the bench, unless KEEP_BED=1 and BED_NAME name one that is up.
BENCH_BED := env EDGE_HTTPS_PORT=38443 EDGE_HTTP_PORT=38080 BED_API_PORT=46443 BED_NAME=$(or $(BED_NAME),bench) \
	KEEP_BED=$(KEEP_BED)
# Go from the machine, or from PyPI where it has none.
GO := $(PYTHON) testbed/build.py --go
GO_CODE := roles/traefik/files/flyreplay testbed/components testbed/cert_manager testbed/device_plugin
PYTEST := $(BIN)/python -m pytest

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

.PHONY: prepare
prepare:
	@$(PYTHON) testbed/prepare.py

.venv/.ready: requirements.txt
	@$(PYTHON) testbed/prepare.py venv
	@echo "venv: $(PYTHON) packages into .venv" >&2
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@site=$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
		mkdir -p "$$site/ansible_collections/abaci"; ln -sfn "$(CURDIR)" "$$site/ansible_collections/abaci/infra"
	@touch $@

.PHONY: venv
venv: .venv/.ready ## Ansible and its collections in .venv, for your own hosts

.venv/.dev: .venv/.ready requirements-dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

.PHONY: dev
dev: .venv/.dev ## The same, with what lint and the tests need

.PHONY: build
build: prepare venv ## Build what the bed needs into the cache outside the clone
	@mkdir -p "$(CACHE)"
	@$(SUDO) $(BED) build --suite $(SUITE) $(if $(K3S),--k3s $(K3S))
	@ln -sfn "$$($(PYTHON) testbed/build.py components | cut -f2)/kubernetes" $(BIN)/kubectl

.PHONY: up
up: build ## Empty nodes to a running site: NODES=3 SUITE=trixie K3S=
	@$(SUDO) $(BED) up --name local --nodes $(NODES) --suite $(SUITE) $(if $(K3S),--k3s $(K3S))
	@$(BIN)/ansible-playbook -i inventories/local site.yml
	@$(SUDO) $(BED) status --name local

.PHONY: down
down: prepare venv ## Remove all that `make up` made and nothing else
	@$(SUDO) $(BED) down --name local

.PHONY: lint
lint: prepare dev ## Static checks
	@$(BIN)/yamllint --strict .
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/mypy plugins && $(BIN)/mypy testbed
	@for tree in "tests/unit tests/render" "tests/litefs tests/tools" tests/e2e tests/bench; do \
		$(BIN)/mypy --no-warn-return-any --no-warn-unused-ignores $$tree; done
	@git ls-files '*.sh' .ci/run | xargs $(BIN)/shellcheck
	@unformatted=$$($(GO) . gofmt -l $(GO_CODE)); test -z "$$unformatted" || { echo "$$unformatted"; exit 1; }
	@for module in $(GO_CODE); do $(GO) $$module go vet ./...; done
	@$(BIN)/ansible-lint --offline
	@$(BIN)/ansible-playbook -i inventories/sample --syntax-check site.yml playbooks/*.yml
	@$(BIN)/antsibull-changelog lint
	@$(BIN)/python testbed/sanity.py --skip-test pylint

.PHONY: sanity
sanity: prepare dev ## What Ansible itself checks, pylint too: minutes
	@$(BIN)/python testbed/sanity.py

# In an environment of its own: with the pins of this one only its first release fits.
IMPORTER := $(CACHE)/abaci-infra/galaxy-importer-0.4.44
.PHONY: importer
importer: dev ## What Galaxy's importer says of the collection: a minute
	@$(PYTHON) -m venv $(IMPORTER)
	@$(IMPORTER)/bin/python -m pip install --quiet --disable-pip-version-check galaxy-importer==0.4.44
	@scratch=$$(mktemp -d); trap 'rm -rf "$$scratch"' EXIT; \
		$(BIN)/ansible-galaxy collection build --output-path "$$scratch"; cd "$$scratch"; \
		PATH="$(IMPORTER)/bin:$$PATH" python -m galaxy_importer.main ./*.tar.gz

.PHONY: unit
unit: prepare dev ## Unit, render and contract tests: no bed
	@for module in $(GO_CODE); do $(GO) $$module go test ./...; done
	@$(PYTEST) tests/unit -n 4 --dist loadfile
	@$(PYTEST) tests/render -n 2 --dist loadfile

.PHONY: litefs
litefs: prepare dev ## The facts of the real LiteFS on which guard and routes rest
	@mkdir -p "$(CACHE)"
	@$(SUDO) $(PYTEST) tests/litefs -n 2 --dist loadfile

.PHONY: molecule
molecule: build dev ## One molecule scenario: SCENARIO=default
	@$(SUDO) $(MOLECULE) PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/molecule test --scenario-name $(SCENARIO)

.PHONY: e2e
e2e: build dev ## The site on three nodes of its own, and what it must bear
	@$(SUDO) $(TEST_BED) $(PYTEST) -v --durations=15 -m "not long" tests/e2e/test_{[1-5],60,72,74}*.py

.PHONY: operations
operations: build dev ## What happens to the data, the long ones too, on a bed of its own
	@$(SUDO) $(TEST_BED) $(PYTEST) -v tests/e2e/test_[56]*.py

.PHONY: platform
platform: build dev ## Certificates, Keel, faults, secrets and the seed's commands on a bed of their own
	@$(PYTHON) testbed/prepare.py browser
	@$(SUDO) $(TEST_BED) $(PYTEST) -v tests/e2e/test_7*.py

.PHONY: application
application: build dev ## An application with Next.js, built by npm, on a bed of its own
	@$(PYTHON) testbed/prepare.py application
	@$(PYTHON) testbed/build.py images-nextjs >/dev/null
	@$(SUDO) $(TEST_BED) $(PYTEST) -v tests/e2e/test_8*.py

.PHONY: interrupts
interrupts: build dev ## Every operation, killed before each task that finds something changed
	@$(SUDO) $(TEST_BED) $(PYTEST) -v -s tests/e2e/interrupts_all.py

.PHONY: bench
bench: build dev ## How long a run with nothing to do takes, on a bed of its own: BENCH="--rounds 3"
	@$(SUDO) $(BENCH_BED) $(BIN)/python tests/bench/bench.py $(BENCH)

.PHONY: test
test: lint unit litefs molecule e2e ## All tests

# Each target works as the first command in a fresh clone: what it needs is set up before. The one
# that needs a Docker engine says so.

.DEFAULT_GOAL := help
SHELL := /bin/bash
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
# Images, cells and the lab's own libvirt need root; for others these commands go through sudo.
AS_ROOT := scripts/as-root
# A process works on whole files, the longest come first (tests/conftest.py). One more process than
# cores makes use of the time in which tests wait, unless a virtual machine needs it. The tests' own
# files hold a server's disk and its backups: too much for a /tmp in memory, as Debian 13 has it.
PROCESSES = 2
PYTEST = $(AS_ROOT) env PATH="$(CURDIR)/$(BIN):$$PATH" PYTEST_DEBUG_TEMPROOT=/var/tmp \
	$(BIN)/python -m pytest \
	--numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder $(TESTS)

.PHONY: help
help:  ## Explain the targets (this)
	@echo 'make <target>, where target is one of:'
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo 'Settings come from the environment (MANAGED_…, see managed/settings.py), such as'
	@echo 'MANAGED_LISTEN_PORT=8080 or MANAGED_DEBIAN_MIRROR. State and logs are in var/.'

.PHONY: root
root:
	@$(AS_ROOT) true

.PHONY: setup
setup:  ## Install packages and the Python environment; quick when nothing is to do
	@scripts/bootstrap.sh

.PHONY: demo
demo: root setup  ## Run the main job on a real VPS (about 25 minutes without KVM); KEEP=1 leaves it up
	@$(AS_ROOT) $(BIN)/managed demo $(if $(filter-out 0,$(KEEP)),--keep)

.PHONY: demo-down
demo-down: root setup  ## End what `make demo KEEP=1` has left up
	@$(AS_ROOT) $(BIN)/managed demo --down

.PHONY: serve
serve: root setup  ## Start the embedded service on 127.0.0.1:8000 and stay up
	@$(AS_ROOT) $(BIN)/managed serve

.PHONY: test
test: images  ## Run the tests, the whole main job on a real VM included; TESTS=path for some
	@[ -n "$(TESTS)" ] || echo 'Running the tests: without KVM about half an hour, most of it one run on a VM.'
	@$(PYTEST) $(if $(TESTS),,-m "not long")

.PHONY: node-test
node-test: TESTS = tests/integration/production/test_node_host.py
node-test: images  ## Take a server through its life on an operator's host with a node
	@$(PYTEST)

.PHONY: kill-matrix
kill-matrix: root setup  ## Kill every part at every step of patch and backup; writes docs/kill-matrix.md
	@$(AS_ROOT) env PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m tests.kill_matrix

.PHONY: test-fast
test-fast: PROCESSES = 3
test-fast: root setup  ## Run all tests that need no VM (about 10 minutes on two cores)
	@$(PYTEST) -m "not vm and not slow"

.PHONY: compose-test
compose-test: root setup  ## Bring docker-compose.yml up on a Docker engine of its own; COMPOSE='docker compose'
	@$(AS_ROOT) env PATH="$(CURDIR)/$(BIN):$$PATH" scripts/try-compose

.PHONY: lint
lint: setup  ## Check style, types, layers and playbooks
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/ansible-lint --offline --profile production playbooks

.PHONY: format
format: setup  ## Put the source in order
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# The generator puts its code in order with ruff, which it looks for on the PATH.
.PHONY: client
client: setup  ## Generate a typed Python client from the OpenAPI document into var/client
	@mkdir -p var
	@$(BIN)/python -m api.openapi > var/openapi.json
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/openapi-python-client generate --path var/openapi.json \
		--config api/client.yaml --meta setup --output-path var/client --overwrite
	@echo 'The client is in var/client: pip install ./var/client'

.PHONY: images
images: root setup  ## Build the rescue image, the operating systems and restic
	@$(AS_ROOT) $(BIN)/managed images build

.PHONY: doctor
doctor: root setup  ## Check tools, versions and permissions, and say how to mend them
	@$(AS_ROOT) $(BIN)/managed doctor

.PHONY: clean
clean:  ## End the lab and remove all that was built, backups of the lab included
	@if [ -x $(BIN)/managed ]; then \
		$(AS_ROOT) $(BIN)/managed demo --down && \
		$(AS_ROOT) $(BIN)/managed cells down && \
		$(AS_ROOT) $(BIN)/managed lab down --yes; \
	fi
	@$(AS_ROOT) rm -rf var .venv *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec $(AS_ROOT) rm -rf {} +

.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SLOW := .venv-slow/charts
PORT ?= 8080
WORKERS ?= 2
# One order of the tests for everybody, so that what fails is what changed; SEED=default shuffles them anew.
SEED ?= 2182168750

.PHONY: help
help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: $(BIN)/python requirements.lock examples/requirements.lock pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock -r examples/requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.run tests/requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r tests/requirements.lock
	@touch $@

# What the slower suites install stays out of the environment that users and tests have.
$(SLOW)/.run: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(SLOW)
	$(SLOW)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(SLOW)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

.PHONY: install run test check
install: $(VENV)/.run ## Make .venv with what the gateway and its demo need

run: install ## Start the demo gateway with three MCP servers behind it (PORT=8080)
	@$(BIN)/mcp-gateway demo --port $(PORT)

test: $(VENV)/.dev ## Install what tests need and run them all (WORKERS=2; 0 is one after the other)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --randomly-seed=$(SEED)

check: $(VENV)/.dev ## Lint, types, import contracts, sizes
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/architecture

.PHONY: bench charts rules-test compose-secrets compose-test conformance bridge-test clients-test
bench: $(VENV)/.dev ## Measure calls a second and CPU a call against nginx (needs gcc; nginx when installed)
	$(BIN)/python bench/run.py

charts: $(SLOW)/.run ## Lint, render and check the Helm chart with the real engine
	$(SLOW)/bin/python charts/test/run.py

rules-test: $(SLOW)/.run ## Check and test the Prometheus rules and the dashboard
	$(SLOW)/bin/python charts/test/rules.py

compose-secrets: ## Make the secrets that docker-compose.yml reads
	sh examples/compose/secrets.sh

compose-test: ## Build the images, follow docs/start-compose.md, kill a replica, leave nothing (needs root)
	$(PYTHON) tests/compose/run.py

conformance: $(VENV)/.dev ## Run the official suites through the gateway against direct
	$(BIN)/python tests/conformance/run.py

bridge-test: $(VENV)/.dev ## Every combination of eras, with servers and clients that know one of them only
	$(BIN)/python tests/bridge/run.py

clients-test: $(VENV)/.dev ## Drive the demo with clients of other SDKs (needs Node.js)
	$(BIN)/python tests/clients/run.py

.PHONY: idp-test
idp-test: $(VENV)/.dev ## Run the gateway behind a real Keycloak and oidc-provider (needs Java, Maven, Node.js)
	$(BIN)/python tests/idp/run.py

.PHONY: fuzz
fuzz: $(VENV)/.dev ## Run every property test and fuzzer with new seeds (FUZZ_SECONDS=120, FUZZ_EXAMPLES=500)
	$(BIN)/python tests/fuzz/run.py

.PHONY: lock
lock: $(VENV)/.dev ## Resolve the hashed lock files anew (needs uv)
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --extra otel pyproject.toml -o requirements.lock
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --extra demo -c requirements.lock pyproject.toml -o examples/requirements.lock
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --extra dev -c requirements.lock pyproject.toml -o tests/requirements.lock

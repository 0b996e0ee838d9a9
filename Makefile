# The ways to run everything: `make help` lists them. All set-up happens in .venv, all that the demo does in .demo.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Ansible refuses to work in a locale that is not UTF-8.
export LC_ALL := C.UTF-8
# Named outright, for Ansible ignores the file in a directory that everybody may write to.
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
export ANSIBLE_HOME := $(CURDIR)/.cache/ansible
export MPLCONFIGDIR := $(CURDIR)/.cache/matplotlib

# As many as there are cores or a few more: most tests wait for servers.
TEST_WORKERS ?= 3
PYTEST_ARGS ?=
COMPILE = uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

.PHONY: help
help: ## List what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' Makefile

.PHONY: demo
demo: export ANSIBLE_HOME := $(CURDIR)/.demo/ansible
demo: export MPLCONFIGDIR := $(CURDIR)/.demo/cache/matplotlib
demo: export PYTHONDONTWRITEBYTECODE := 1
demo: setup-demo ## Build the demo platform in .demo and carry out its daily maintenance
	@scripts/demo_platform present
	@ansible-playbook -i inventories/demo playbooks/daily.yml

.PHONY: demo-clean
demo-clean: ## Stop the demo platform and remove .demo
	@[ ! -e .demo ] || { scripts/venv demo && scripts/demo_platform absent; }

.PHONY: test
test: setup-test ## Run every test that needs no container
	@python -m pytest -m "not long" -n $(TEST_WORKERS) --dist loadfile $(PYTEST_ARGS)

.PHONY: test-long
test-long: setup-test ## Run the tests that take minutes
	@python -m pytest -m long $(PYTEST_ARGS)

.PHONY: test-checks
test-checks: setup-test ## Switch off each check of backups, restore tests and mirrors, and see that a test notices
	@scripts/without_each_check --jobs $(TEST_WORKERS)

.PHONY: lint
lint: setup-test ## Check the code with ruff, mypy, yamllint and ansible-lint
	@ruff check .
	@ruff format --check --quiet .
	@mypy -p ansible_collections.wellkept.maintenance.plugins.module_utils \
		-p ansible_collections.wellkept.maintenance.plugins.plugin_utils
	@yamllint --strict .
	@ansible-lint --nocolor --offline --profile production playbooks roles molecule inventories meta galaxy.yml requirements.yml

.PHONY: lock
lock: setup-test ## Pin the requirements anew, with hashes
	@command -v uv >/dev/null || python -m pip install --quiet --disable-pip-version-check uv
	@for name in control demo test molecule; do $(COMPILE) requirements/$$name.in --output-file requirements/$$name.txt; done

.PHONY: bench
bench: setup-test ## Measure the speed
	@python bench/run.py

.PHONY: bench-database
bench-database: setup-test ## Measure vacuum and reindex against PostgreSQL's own tools, on 2.8 GB
	@python bench/run.py database

.PHONY: bench-backup
bench-backup: setup-test ## Measure backup, verification and restore test against PostgreSQL's tools and pgBackRest
	@scripts/system_packages pgbackrest=pgbackrest
	@python bench/run.py backup restore_test

.PHONY: build
build: setup-demo ## Build the collection's archive
	@ansible-galaxy collection build --force

.PHONY: sanity
sanity: setup-test ## Run ansible-test sanity on a built copy of the collection
	@scripts/sanity

.PHONY: clean
clean: demo-clean ## Remove all that was made here
	@rm -rf .venv .cache .ansible .mypy_cache .ruff_cache .pytest_cache *.tar.gz
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: setup-demo
setup-demo:
	@scripts/venv demo
	@scripts/system_packages logrotate=logrotate setpriv=util-linux

.PHONY: setup-test
setup-test:
	@scripts/venv test
	@scripts/system_packages \
		logrotate=logrotate \
		setpriv=util-linux \
		ssh=openssh-client \
		sshd=openssh-server \
		rsync=rsync \
		pgbackrest=pgbackrest \
		restic=restic \
		redis-check-rdb=redis-tools \
		zstd=zstd \
		lz4=lz4

# -- test hosts: containers that run systemd, reached over SSH (docs/molecule.md) --

.PHONY: molecule
molecule: setup-molecule ## Carry out the daily plan on real hosts, in all scenarios
	@scripts/hosts/test

.PHONY: molecule-long
molecule-long: setup-molecule ## Kill rebuilds of indexes on real hosts, 50 times each way and release
	@for release in debian-13 debian-12; do \
		HOSTS_RELEASE=$$release HOSTS_KILLS=50 HOSTS_SNAPSHOT_SECONDS=60 scripts/hosts/test platform; done

.PHONY: hosts
hosts: setup-molecule ## Start the hosts of the scenario platform and leave them up
	@molecule create -s platform
	@mkdir -p inventories/hosts
	@ln -sfn ../../molecule/platform/inventory/hosts.yml inventories/hosts/hosts.yml
	@ln -sfn ../../molecule/platform/inventory/group_vars inventories/hosts/group_vars
	@ln -sfn ../../.cache/molecule/platform/inventory/addresses.yml inventories/hosts/addresses.yml
	@echo "Carry out its daily maintenance: ansible-playbook -i inventories/hosts playbooks/daily.yml"

.PHONY: hosts-clean
hosts-clean: ## Remove them
	@[ ! -e inventories/hosts ] || { scripts/venv molecule && molecule destroy -s platform && rm -rf inventories/hosts; }

clean: hosts-clean

.PHONY: bench-fleet
bench-fleet: setup-molecule ## Measure daily runs over SSH on 1, 10 and 20 hosts
	@python bench/fleet_ssh.py

.PHONY: setup-molecule
setup-molecule:
	@scripts/hosts/setup
	@scripts/venv molecule

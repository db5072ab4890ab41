# Recipes for development. They use .venv where it is there (README's second command makes it).

set positional-arguments

export PATH := justfile_directory() / ".venv/bin" + ":" + env("PATH")

# List the recipes
default:
    @just --list --unsorted

# --- tests -----------------------------------------------------------------------------------------------------

# All tests; more arguments go to pytest
test *ARGS:
    python -m pytest "$@"

# All tests, by name and with their output
test-v *ARGS:
    python -m pytest -vv -s "$@"

# The tests whose name contains TEST
test-one TEST *ARGS:
    python -m pytest -vv -k "$@"

# The queue: lanes, scheduling, submit, retries, dead letters
test-queue *ARGS:
    python -m pytest tests/unit tests/property -k "queue or core or runtime or property" "$@"

# The manager: start, shutdown, drain, close, builder
test-manager *ARGS:
    python -m pytest tests/unit -k "manager or builder or drain or shutdown or close" "$@"

# The monitor
test-monitor *ARGS:
    python -m pytest tests/unit/monitor "$@"

# Configuration and lanes from a file
test-config *ARGS:
    python -m pytest tests/unit -k "config or load_lanes" "$@"

# Errors
test-error *ARGS:
    python -m pytest tests -k "error" "$@"

# Events, bus and sinks
test-event *ARGS:
    python -m pytest tests/unit -k "event or bus or sinks" "$@"

# --- coverage --------------------------------------------------------------------------------------------------

# Coverage in the terminal
cov *ARGS:
    coverage run -m pytest "$@"
    coverage report

# Coverage as HTML, in htmlcov/
cov-html *ARGS:
    coverage run -m pytest "$@"
    coverage html

# Coverage of one module or folder of lane_obs, such as core or bus
cov-module MODULE:
    coverage run -m pytest
    coverage report --include "lane_obs/{{ MODULE }}*,lane_obs/*/{{ MODULE }}*"

# --- format and lint -------------------------------------------------------------------------------------------

# Format the code
fmt:
    ruff format .

# Check the format
fmt-check:
    ruff format --check .

# Lint, types, and who imports whom
lint:
    ruff check .
    mypy
    lint-imports

# What CI checks of the code (.ci/run does this, and builds and installs the package)
ci: fmt-check lint test

# The quick check while you work
check:
    ruff check .
    mypy
    python -m pytest tests/unit -q -x

# --- the rest --------------------------------------------------------------------------------------------------

# Rewrite what is generated: tables in README.md and docs/, the list of the public API
doc:
    python -m dashboards.generate
    python docs/generate.py
    python -m deploy.generate
    python -m tests.architecture.public_api

# Side-by-side comparison with peers, as one table
bench *ARGS:
    python -m benchmarks.compare "$@"

# Durable lanes at half of their maximum rate for ten minutes: nothing may grow
soak *ARGS:
    python -m benchmarks.soak "$@"

# A long run of the fault tests of shared queues: each kind of harm so many times, and a million commands at the end
faults ROUNDS="20" COMMANDS="1000000":
    LANE_OBS_FAULT_ROUNDS={{ ROUNDS }} LANE_OBS_SOAK={{ COMMANDS }} python -m pytest -v -s --timeout=3600 tests/integration/faults

# Remove what tools leave behind
clean:
    rm -rf artifacts build dist site htmlcov .coverage .coverage.* .benchmarks .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
    find . -name __pycache__ -not -path "./.venv/*" -type d -prune -exec rm -rf {} +

# Install the newest versions of everything that development needs
update:
    python -m pip install --quiet --upgrade --upgrade-strategy eager -e '.[dev]'

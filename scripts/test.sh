#!/usr/bin/env bash
# Checks everything CI checks: ruff, mypy, then the tests with line and branch coverage of pillsnap (at least 85 %).
#
#   bash scripts/test.sh                    all of it
#   bash scripts/test.sh -k checkpoint -x   the same with further arguments for pytest
#
# The last lines printed are pytest's summary. The exit code is not 0 when any of the checks found something.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/core/setup_venv.sh
python="${PILLSNAP_VENV:-.venv}/bin/python"
failed=()

# The report page is tested in a real browser. Without one those tests are skipped and say so.
install_browser() {
    if command -v chromium >/dev/null && command -v chromedriver >/dev/null; then
        return
    fi
    local as_root=()
    if [[ $EUID -ne 0 ]]; then
        as_root=(sudo -n)
    fi
    echo "[test] installing chromium and chromium-driver for the tests of the report page"
    if ! command -v apt-get >/dev/null || ! { "${as_root[@]}" apt-get update -qq &&
        "${as_root[@]}" apt-get install -y -qq --no-install-recommends chromium chromium-driver; } >/dev/null 2>&1; then
        echo "[test] they could not be installed: the tests of the report page will be skipped"
    fi
}

check() {
    echo "[test] $*"
    "$python" -m "$@" || failed+=("$1")
}

install_browser
# Without its cache: the order of imports depends on files that ruff does not list as inputs of a cached answer.
check ruff check --no-cache .
check ruff format --no-cache --check .
check mypy
if [[ ${#failed[@]} -gt 0 ]]; then
    echo "[test] found something: ${failed[*]} (above). The tests run all the same; this script will end with exit code 1."
fi

# Two test processes with one compute thread each: the tests are mostly Python, so this keeps both of two cores busy.
echo "[test] pytest"
OMP_NUM_THREADS=1 "$python" -m pytest -n 2 --dist loadfile --cov --cov-report=term "$@" || failed+=(pytest)
[[ ${#failed[@]} -eq 0 ]]

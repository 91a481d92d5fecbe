#!/usr/bin/env bash
# Writes requirements.lock from pyproject.toml: exact versions for every platform, with hashes and without any registry address.
#
#   bash scripts/core/compile_requirements.sh             keep the locked versions, add what pyproject.toml newly asks for
#   bash scripts/core/compile_requirements.sh --upgrade   take the newest versions (further arguments go to uv as well)
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
cd "$root"
python="${PILLSNAP_VENV:-.venv}/bin/python"

if [[ ! -x "$python" ]]; then
    echo "compile_requirements.sh: $python not found. Set the environment up first: bash scripts/core/setup_venv.sh" >&2
    exit 2
fi
"$python" -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
    --extra dev pyproject.toml -o requirements.lock "$@"
echo "requirements.lock: $(grep -c '==' requirements.lock) packages pinned"

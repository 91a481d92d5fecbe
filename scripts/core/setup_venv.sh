#!/usr/bin/env bash
# Builds the Python environment of this project, or does nothing when it is up to date (ADR-3).
#
#   bash scripts/core/setup_venv.sh            works from any folder; the environment is .venv in the repository
#   PILLSNAP_VENV=/elsewhere/venv bash ...     another place for it (a relative one is taken from the repository)
#
# Needs Python 3.11 or newer and the package registry. Every package comes from requirements.lock with its hash checked;
# torch is the registry's CUDA build, which also runs on a CPU.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
cd "$root"
venv="${PILLSNAP_VENV:-.venv}"
[[ "$venv" == /* ]] || venv="$root/$venv"
stamp="$venv/.pillsnap-stamp"

say() { echo "[setup] $*"; }
fail() {
    echo "[setup] error: $*" >&2
    exit 2
}

# Where the environment stands and which Python it has: when one of these changes it is made anew.
place() {
    echo "$root -> $venv"
    "$venv/bin/python" -V
}

# When only this changes, the packages are installed over the old ones.
content() {
    cat requirements.lock pyproject.toml | sha256sum
}

stands_in_place() {
    [[ -f "$stamp" && -x "$venv/bin/python" ]] && [[ "$(place 2>&1)" == "$(head -n 2 "$stamp")" ]]
}

is_up_to_date() {
    stands_in_place && [[ "$(content)" == "$(tail -n 1 "$stamp")" ]]
}

# Sets `python` to the first interpreter that runs (a pyenv shim may exist and still fail), is new enough and can build environments.
find_python() {
    local candidate version seen=""
    for candidate in python3.13 python3.12 python3.11 python3 python; do
        command -v "$candidate" >/dev/null || continue
        version="$("$candidate" -c 'import platform; print(platform.python_version())' 2>/dev/null)" || version="does not run"
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
                python="$candidate"
                return
            fi
            version+=" without the venv module (on Debian and Ubuntu: apt-get install python3-venv)"
        fi
        seen+="${seen:+, }$candidate: $version"
    done
    fail "no usable Python found (${seen:-none on the PATH}); 3.11 or newer is needed. Install one, or put it first on the PATH."
}

create() {
    local python
    if [[ -d "$venv" && ! -f "$venv/pyvenv.cfg" && -n "$(ls -A "$venv")" ]]; then
        fail "$venv holds files and is not a Python environment; it will not be overwritten. Set PILLSNAP_VENV to another folder."
    fi
    find_python
    say "creating $venv with $("$python" -V)"
    "$python" -m venv --clear "$venv"
}

build() {
    stands_in_place || create
    rm -f "$stamp"
    install_uv
    say "installing the packages of requirements.lock (several GB the first time)"
    uv_install --no-deps --require-hashes -r requirements.lock ||
        fail "the packages could not be installed (uv's message is above). Is the package registry reachable? Then run this again."
    uv_install --no-deps --no-build-isolation -e .
    verify
    { place && content; } >"$stamp.new"
    mv "$stamp.new" "$stamp" # last: an interrupted set-up is done again
}

uv_install() {
    "$venv/bin/python" -m uv pip install --quiet --python "$venv/bin/python" "$@"
}

# The locked uv, with its hash checked like every other package.
install_uv() {
    local only_uv="$venv/uv-requirement.txt"
    sed -n '/^uv==/,/[^\\]$/p' requirements.lock >"$only_uv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$only_uv" ||
        fail "uv could not be installed (pip's message is above). Is the package registry reachable? Then run this again."
    rm "$only_uv"
}

# One call into torchvision's compiled part: a torch and a torchvision that do not belong together fail here, not in training.
verify() {
    "$venv/bin/python" - <<'PYTHON' || fail "torch and torchvision do not work together (message above)"
import torch, torchvision.ops
torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
cuda = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no CUDA device, the CPU is used"
print(f"[setup] torch {torch.__version__}, torchvision {torchvision.__version__}: {cuda}")
PYTHON
}

if is_up_to_date; then
    say "$venv is up to date"
else
    build
    say "$venv is ready after $SECONDS s"
fi

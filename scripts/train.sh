#!/usr/bin/env bash
# Trains both models: environment, check of the configuration, folders, the run with its logs, and what came of it (SH-1, SH-2).
#
#   bash scripts/train.sh --demo                                  synthetic pills, minutes on a CPU
#   bash scripts/train.sh configs/photos.yaml data.root=~/pills   your own photographs
#   bash scripts/train.sh [--demo] [CONFIG] [a.b=c ...]           CONFIG is config.yaml, with --demo configs/demo.yaml
#
# Relative paths are taken from the repository. Exit codes: 0 trained, 2 configuration, 3 data, 4 out of memory,
# 130 interrupted after a checkpoint, anything else an error of the program.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv="${PILLSNAP_VENV:-.venv}"
config=""
default_config="config.yaml"
overrides=()

say() { echo "[train.sh] $*"; }
fail() {
    echo "[train.sh] error: $*" >&2
    exit 2
}

parse_arguments() {
    local argument
    for argument in "$@"; do
        case "$argument" in
            -h | --help) sed -n '2,9s/^# \{0,1\}//p' scripts/train.sh && exit 0 ;;
            --demo) default_config="configs/demo.yaml" ;;
            -*) fail "unknown option $argument; there are --demo and --help" ;;
            [a-z]*=*) overrides+=("$argument") ;;
            *)
                [[ -z "$config" ]] || fail "two configurations, $config and $argument; one is wanted (settings look like train.lr=1e-3)"
                config="$argument"
                ;;
        esac
    done
    config="${config:-$default_config}"
    [[ -f "$config" ]] || fail "no configuration file $config in $PWD. Shipped are: $(echo config.yaml configs/*.yaml)"
}

# Every setting is checked here, before anything is written.
read_settings() {
    local code=0
    exp_dir="$("$venv/bin/pillsnap" config "$config" "${overrides[@]}" --get paths.exp_dir)" || code=$?
    if [[ $code -ne 0 ]]; then
        say "the configuration cannot be used (above); nothing was written"
        exit "$code"
    fi
}

make_folders() {
    mkdir -p "$exp_dir"/{logs,tb,reports,checkpoints,export} ||
        fail "the experiment folder $exp_dir cannot be written. Choose another: paths.exp_dir=DIR"
}

show_settings() {
    "$venv/bin/python" - "$config" "${overrides[@]}" <<'PYTHON'
import sys
import torch
from pillsnap.config.loading import load_config

cfg = load_config(sys.argv[1], sys.argv[2:])
common, tasks = cfg.train, {"classification": cfg.train.classification, "detection": cfg.train.detection}
batch_sizes = {name: task.batch_size or common.batch_size for name, task in tasks.items()}
rows = {
    "configuration": " ".join(sys.argv[1:]),
    "experiment": cfg.paths.exp_dir,
    "data": cfg.data.root,
    "tasks": ", ".join(common.tasks) + (f" ({common.strategy})" if len(common.tasks) > 1 else ""),
    "epochs": ", ".join(f"{name} {tasks[name].epochs}" for name in common.tasks),
    "batch size": ", ".join(f"{name} {batch_sizes[name]}" for name in common.tasks),
    "device": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu",
}
for name, value in rows.items():
    print(f"[train.sh] {name + ':':<15}{value}")
PYTHON
}

# The run is a process group of its own, so that a signal reaches it once, from here: the program takes a second one as
# "leave at once", and the terminal, `timeout` and service managers send theirs to whole groups.
run() {
    local out_tee err_tee code=0
    exec 3> >(trap '' INT TERM HUP && exec tee -a "$exp_dir/logs/train.out") && out_tee=$!
    exec 4> >(trap '' INT TERM HUP && exec tee -a "$exp_dir/logs/train.err" >&2) && err_tee=$!
    # Before the program starts: on a busy machine it can be ready before this shell goes on.
    trap 'forward INT' INT
    trap 'forward TERM' TERM HUP
    set -m
    PYTHONUNBUFFERED=1 "$venv/bin/python" -m src.train --cfg "$config" "${overrides[@]}" >&3 2>&4 3>&- 4>&- </dev/null &
    training=$!
    set +m
    if [[ -n "$early_signal" ]]; then
        kill -s "$early_signal" "$training" 2>/dev/null || true
    fi
    while kill -0 "$training" 2>/dev/null; do
        wait "$training" || true # comes back early when a signal arrives
    done
    wait "$training" || code=$?
    exec 3>&- 4>&-
    wait "$out_tee" "$err_tee" || true # the last lines come before ours
    return "$code"
}

training=""
early_signal=""
last_signal_us=0
# shellcheck disable=SC2329 # called by the traps
forward() {
    local now_us="${EPOCHREALTIME//[^0-9]/}"
    if [[ -z "$training" ]]; then
        early_signal="$1"
    elif ((now_us - last_signal_us > 1000000)); then
        kill -s "$1" "$training" 2>/dev/null || true
    fi
    last_signal_us=$now_us
}

conclude() {
    case "$1" in
        0) say "finished. Figures: $exp_dir/reports/metrics.json  Report: $exp_dir/reports/index.html" ;;
        2) say "configuration error (above). The settings come from $config and the command line." ;;
        3) say "data error (above). What a folder holds and what is wrong with it: $venv/bin/pillsnap data check DIR" ;;
        4) say "out of memory. Lower train.classification.batch_size, train.detection.batch_size or model.image_size." ;;
        130) say "interrupted. To go on: bash scripts/train.sh$(printf ' %q' "$config" "${overrides[@]}" train.resume=last)" ;;
        137) say "killed from outside, mostly by the system when memory runs out. Lower the batch sizes or dataloader.num_workers." ;;
        *) say "failed with exit code $1. The message is in $exp_dir/logs/train.err" ;;
    esac
}

parse_arguments "$@"
bash scripts/core/setup_venv.sh
read_settings
make_folders
show_settings
code=0
run || code=$?
conclude "$code" | tee -a "$exp_dir/logs/train.out"
exit "$code"

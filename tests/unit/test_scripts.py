"""The shell scripts, with a small program in the place of the training: the real one is run by tests/run."""

import hashlib
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted([*ROOT.glob("scripts/**/*.sh"), ROOT / ".ci" / "run"])

# Stands for the environment's python: `-m src.train` becomes the program under test, everything else is passed on.
PYTHON = """#!/usr/bin/env bash
if [[ "$1 $2" == "-m src.train" ]]; then exec "{python}" "{program}" "${{@:3}}"; fi
exec "{python}" "$@"
"""

# The same without the list of settings, which takes seconds because it asks torch for the device.
QUICK_PYTHON = PYTHON.replace("bash\n", 'bash\nif [[ "$1" == "-" ]]; then exit 0; fi\n', 1)

# Stands for `pillsnap config ... --get paths.exp_dir`.
QUICK_PILLSNAP = """#!/usr/bin/env bash
echo "{exp_dir}"
"""

PILLSNAP = """#!/usr/bin/env bash
exec "{python}" -m pillsnap.cli.main "$@"
"""

WAITS_FOR_A_SIGNAL = """
import signal, sys, time
seen = []
signal.signal(signal.SIGINT, lambda *_: seen.append("INT"))
signal.signal(signal.SIGTERM, lambda *_: seen.append("TERM"))
print("ready", flush=True)
while not seen:
    time.sleep(0.05)
time.sleep(0.5)  # the checkpoint
print("saved after", *seen)
sys.exit(130)
"""


def environment(folder: Path, program: str, *, quick: bool = True) -> dict[str, str]:
    """Make an environment that setup_venv.sh takes for up to date; return the variables that point at it."""
    venv = folder / "a venv"
    (venv / "bin").mkdir(parents=True)
    (folder / "program.py").write_text(program, encoding="utf-8")
    texts = {"python": QUICK_PYTHON, "pillsnap": QUICK_PILLSNAP} if quick else {"python": PYTHON, "pillsnap": PILLSNAP}
    values = {"python": sys.executable, "program": folder / "program.py", "exp_dir": folder / "an experiment"}
    for name, text in texts.items():
        (venv / "bin" / name).write_text(text.format(**values), encoding="utf-8")
        (venv / "bin" / name).chmod(0o755)
    content = (ROOT / "requirements.lock").read_bytes() + (ROOT / "pyproject.toml").read_bytes()
    stamp = f"{ROOT} -> {venv}\nPython {platform.python_version()}\n{hashlib.sha256(content).hexdigest()}  -\n"
    (venv / ".pillsnap-stamp").write_text(stamp, encoding="utf-8")
    return {**os.environ, "PILLSNAP_VENV": str(venv)}


def train(
    folder: Path, *arguments: str, program: str = "print('epoch 1')", quick: bool = True
) -> tuple[subprocess.CompletedProcess[str], Path]:
    """Run train.sh with `program` as the training; return what it did and the experiment folder."""
    command = ["bash", str(ROOT / "scripts" / "train.sh"), *arguments]
    variables = environment(folder, program, quick=quick)
    done = subprocess.run(command, env=variables, cwd=folder, capture_output=True, text=True, check=False)
    return done, folder / "an experiment"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_parses(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_ci_runs_exactly_the_test_script() -> None:
    commands = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert commands[0] == "#!/usr/bin/env bash"
    assert commands[-1] == "bash scripts/test.sh"


@pytest.mark.req("SH-1")
def test_a_missing_configuration_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    done, exp_dir = train(tmp_path, "nowhere.yaml")
    assert done.returncode == 2
    assert "no configuration file nowhere.yaml" in done.stderr
    assert "configs/demo.yaml" in done.stderr
    assert not exp_dir.exists()


@pytest.mark.req("SH-1")
def test_a_wrong_setting_ends_before_any_folder_is_made(tmp_path: Path) -> None:
    exp_dir = tmp_path / "never"
    done, _ = train(tmp_path, "--demo", f"paths.exp_dir={exp_dir}", "train.sed=1", quick=False)
    assert done.returncode == 2
    assert "did you mean train.seed?" in done.stderr
    assert "nothing was written" in done.stdout
    assert not exp_dir.exists()


@pytest.mark.req("SH-1")
def test_the_key_settings_are_shown(tmp_path: Path) -> None:
    exp_dir = tmp_path / "from the command line"
    settings = [f"paths.exp_dir={exp_dir}", "train.tasks=[detection]", "train.detection.epochs=7"]
    done, _ = train(tmp_path, "--demo", *settings, quick=False)
    assert done.returncode == 0, done.stderr
    assert f"experiment:    {exp_dir}\n" in done.stdout
    assert f"data:          {exp_dir}/synthetic\n" in done.stdout
    assert "epochs:        detection 7\n" in done.stdout
    assert "batch size:    detection 16\n" in done.stdout
    assert exp_dir.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["--fast"], "unknown option --fast", id="option"),
        pytest.param(["config.yaml", "configs/demo.yaml"], "two configurations", id="two files"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path: Path, arguments: list[str], message: str) -> None:
    done, _ = train(tmp_path, *arguments)
    assert done.returncode == 2
    assert message in done.stderr


@pytest.mark.req("SH-1")
def test_the_folders_of_the_experiment_are_made(tmp_path: Path) -> None:
    done, exp_dir = train(tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in exp_dir.iterdir()} == {"logs", "tb", "reports", "checkpoints", "export"}


@pytest.mark.req("SH-1", "CLI-1")
@pytest.mark.parametrize(
    ("arguments", "passed_on"),
    [
        pytest.param([], ["--cfg", "config.yaml"], id="default"),
        pytest.param(["--demo", "train.lr=1e-3"], ["--cfg", "configs/demo.yaml", "train.lr=1e-3"], id="demo"),
        pytest.param(
            ["data.root=a b", "configs/photos.yaml"], ["--cfg", "configs/photos.yaml", "data.root=a b"], id="space"
        ),
    ],
)
def test_configuration_and_overrides_reach_the_program(
    tmp_path: Path, arguments: list[str], passed_on: list[str]
) -> None:
    done, _ = train(tmp_path, *arguments, program="import sys; print(sys.argv[1:])")
    assert str(passed_on) in done.stdout


@pytest.mark.req("SH-2")
def test_output_reaches_the_terminal_and_the_log_files(tmp_path: Path) -> None:
    done, exp_dir = train(tmp_path, program="import sys; print('to out'); print('to err', file=sys.stderr)")
    assert "to out" in done.stdout
    assert "to err" in done.stderr
    assert "to out" in (exp_dir / "logs" / "train.out").read_text(encoding="utf-8")
    assert (exp_dir / "logs" / "train.err").read_text(encoding="utf-8") == "to err\n"


@pytest.mark.req("SH-2")
def test_a_second_run_is_appended_to_the_logs(tmp_path: Path) -> None:
    (tmp_path / "an experiment" / "logs").mkdir(parents=True)
    (tmp_path / "an experiment" / "logs" / "train.out").write_text("first run\n", encoding="utf-8")
    _, exp_dir = train(tmp_path, program="print('second run')")
    assert (exp_dir / "logs" / "train.out").read_text(encoding="utf-8").startswith("first run\nsecond run\n")


@pytest.mark.req("SH-2", "SUC-1")
@pytest.mark.parametrize(
    ("exit_code", "message"),
    [
        (0, r"finished\. Figures: .*/reports/metrics\.json  Report: .*/reports/index\.html"),
        (1, r"failed with exit code 1\. The message is in .*/logs/train\.err"),
        (2, r"configuration error"),
        (3, r"data error .* data check DIR"),
        (4, r"out of memory"),
        (130, r"To go on: bash scripts/train\.sh config\.yaml train\.seed=1 train\.resume=last"),
        (137, r"killed from outside"),
    ],
)
def test_every_exit_code_has_its_message_and_is_passed_on(tmp_path: Path, exit_code: int, message: str) -> None:
    done, _ = train(tmp_path, "train.seed=1", program=f"raise SystemExit({exit_code})")
    assert done.returncode == exit_code
    assert re.search(message, done.stdout.splitlines()[-1])


@pytest.mark.req("SH-2")
@pytest.mark.parametrize("whole_group", [True, False], ids=["group", "script only"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["INT", "TERM"])
def test_a_signal_reaches_the_program_once_and_its_end_is_awaited(
    tmp_path: Path, number: signal.Signals, whole_group: bool
) -> None:
    with subprocess.Popen(
        ["bash", str(ROOT / "scripts" / "train.sh")],
        env=environment(tmp_path, WAITS_FOR_A_SIGNAL),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # as a terminal does: Ctrl-C goes to the whole group
    ) as running:
        assert running.stdout is not None
        lines = iter(running.stdout.readline, "")
        assert "ready\n" in lines
        (os.killpg if whole_group else os.kill)(running.pid, number)
        rest = list(lines)
    assert f"saved after {number.name.removeprefix('SIG')}\n" in rest
    assert "train.resume=last" in rest[-1]
    assert running.returncode == 130


@pytest.mark.req("ADR-3")
def test_an_up_to_date_environment_is_left_alone_at_once(tmp_path: Path) -> None:
    variables = environment(tmp_path, "")
    started = time.monotonic()
    done = subprocess.run(
        ["bash", str(ROOT / "scripts/core/setup_venv.sh")],
        env=variables,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"[setup] {variables['PILLSNAP_VENV']} is up to date\n"
    assert time.monotonic() - started < 1


@pytest.mark.req("ADR-3")
def test_a_folder_that_is_no_environment_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work", encoding="utf-8")
    done = subprocess.run(
        ["bash", str(ROOT / "scripts/core/setup_venv.sh")],
        env={**os.environ, "PILLSNAP_VENV": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "is not a Python environment; it will not be overwritten" in done.stderr
    assert (tmp_path / "thesis.txt").exists()


@pytest.mark.req("ADR-3")
def test_interpreters_that_do_not_run_or_are_too_old_are_named(tmp_path: Path) -> None:
    needed = ("dirname", "sed", "head", "tail", "cat", "ls", "sha256sum")
    for command in needed:
        (tmp_path / command).symlink_to(shutil.which(command) or "")
    for name, text in {
        "python3.13": "exit 127",
        "python3": "case $2 in *print*) echo 3.9.2 ;; *) exit 1 ;; esac",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        ["/bin/bash", str(ROOT / "scripts/core/setup_venv.sh")],
        env={"PATH": str(tmp_path), "PILLSNAP_VENV": str(tmp_path / "venv")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "python3.13: does not run, python3: 3.9.2" in done.stderr
    assert "3.11 or newer is needed" in done.stderr


def test_the_lock_pins_everything_with_hashes_and_holds_no_address() -> None:
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert "://" not in text
    assert not re.search(r"^\s*--(?!hash=)", text, flags=re.MULTILINE)
    packages = re.split(r"\n(?=[a-z])", text.strip())
    without_hash = [package for package in packages if "==" not in package or "--hash=sha256:" not in package]
    assert without_hash == []
    assert {"torch", "torchvision", "uv"} <= {package.partition("==")[0] for package in packages}

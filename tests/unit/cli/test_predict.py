import json
from pathlib import Path
from typing import Any, cast

import pytest
from PIL import Image
from rich.console import Console

from pillsnap.cli.main import main
from pillsnap.cli.predict import answer_table
from pillsnap.data.images import image_size_wh
from pillsnap.inference.answers import Answer, Candidate, Pill
from tests.unit.inference.builders import painted_picture, write_experiment


@pytest.fixture(scope="module")
def exp_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_experiment(tmp_path_factory.mktemp("predict") / "exp 01")


@pytest.fixture
def photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A photograph in another folder than the current one."""
    for name in ("data", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Image.fromarray(painted_picture()).save(tmp_path / "data" / "알약 1.png")
    return tmp_path / "data" / "알약 1.png"


def pillsnap(*words: object) -> int:
    with pytest.raises(SystemExit) as left:
        main(["predict", *map(str, words)])
    return int(left.value.code or 0)


@pytest.mark.req("INF-1")
def test_the_answer_is_printed_and_drawn_into_the_current_folder(
    photo: Path, exp_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pillsnap(photo, "--exp", exp_dir) == 0
    assert "K-00000" in capsys.readouterr().out
    assert image_size_wh(Path("알약 1.pillsnap.png")) == (640, 427)
    assert [path.name for path in photo.parent.iterdir()] == [photo.name]


@pytest.mark.req("INF-1")
def test_json_is_complete_and_names_the_picture(
    photo: Path, exp_dir: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "new folder" / "seen.jpg"
    assert pillsnap(photo, "--exp", exp_dir, "--mode", "combo", "--conf", "0.99", "--json", "--out", out) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["mode_used"], answer["pills"], answer["image_size_wh"]) == ("combo", [], [300, 200])
    assert answer["picture"] == str(out)
    assert out.is_file()


def test_a_picture_without_pills_says_what_to_try(
    photo: Path, exp_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pillsnap(photo, "--exp", exp_dir, "--mode", "combo", "--conf", "1") == 0
    assert "No pill found" in capsys.readouterr().out


def test_a_photograph_in_the_current_folder_is_drawn_into_the_experiment(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exp_dir = write_experiment(tmp_path / "exp", with_detector=False)
    monkeypatch.chdir(photo.parent)
    assert pillsnap(photo.name, "--exp", exp_dir) == 0
    assert (exp_dir / "predictions" / "알약 1.pillsnap.png").is_file()
    assert [path.name for path in photo.parent.iterdir()] == [photo.name]


def test_the_photograph_is_never_overwritten(photo: Path, exp_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = photo.read_bytes()
    assert pillsnap(photo, "--exp", exp_dir, "--out", photo) == 2
    assert "is the photograph itself" in capsys.readouterr().err
    assert photo.read_bytes() == before


def test_a_picture_that_cannot_be_written_says_so(
    photo: Path, exp_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pillsnap(photo, "--exp", exp_dir, "--out", "picture.unknown") == 2
    assert "cannot be written to picture.unknown" in capsys.readouterr().err


@pytest.mark.parametrize(("image", "exp", "code"), [("gone.png", None, 3), (None, "gone", 2)], ids=["image", "exp"])
def test_what_is_missing_sets_the_exit_code(
    photo: Path, exp_dir: Path, image: str | None, exp: str | None, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pillsnap(image or photo, "--exp", exp or exp_dir) == code
    assert "gone" in capsys.readouterr().err


def pill(top5: list[Candidate], **changes: Any) -> Pill:
    whole: dict[str, Any] = {
        **top5[0],
        "is_unknown": False,
        "accept_score": 0.9,
        "top5": top5,
        "box_xyxy": None,
        "detection_confidence": None,
    }
    return cast("Pill", {**whole, **changes})


def printed(one: Pill, **changes: Any) -> str:
    answer: dict[str, Any] = {"mode_used": "combo", "pills": [one], "elapsed_ms": {"total": 12.3}, "gating_score": None}
    console = Console(width=100)
    with console.capture() as capture:
        console.print(answer_table(cast("Answer", {**answer, **changes})))
    return capture.get()


def test_the_table_shows_drug_box_and_runners_up() -> None:
    top5 = [Candidate(code=f"K-{i}", name=None, confidence=c) for i, c in enumerate((0.7, 0.25, 0.05, 0.001))]
    shown = printed(pill(top5, code="K-0", name="[bold]", box_xyxy=[1.4, 2, 30.6, 40]))
    assert "combo, 12 ms" in shown
    assert all(text in shown for text in ("K-0", "[bold]", "70.0%", "1, 2, 31, 40", "K-1 25%", "K-2 5%"))
    assert "K-3" not in shown


@pytest.mark.req("FIN-3")
def test_a_refused_pill_is_called_unknown_with_what_it_looks_like() -> None:
    top5 = [Candidate(code=f"K-{i}", name="Aspirin", confidence=c) for i, c in enumerate((0.7, 0.3))]
    shown = printed(pill(top5, code="unknown", name=None, is_unknown=True))
    assert all(text in shown for text in ("unknown", "refused", "looks like K-0 70%", "K-1 30%"))
    assert "Aspirin" not in shown


@pytest.mark.req("DAT-6")
def test_the_table_says_when_auto_chose() -> None:
    shown = printed(pill([Candidate(code="K-0", name=None, confidence=0.7)]), mode_used="single", gating_score=0.1)
    assert "single (chosen by auto), 12 ms" in shown


@pytest.mark.req("FIN-3")
def test_without_a_calibration_it_is_said_that_nothing_is_refused(
    photo: Path, exp_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pillsnap(photo, "--exp", exp_dir) == 0
    assert "has no calibration, so no pill is called unknown" in capsys.readouterr().out


@pytest.mark.req("DAT-6")
def test_an_unsure_answer_is_kept_as_a_hard_case(photo: Path, tmp_path: Path) -> None:
    exp_dir = write_experiment(tmp_path / "exp", with_detector=False)
    (exp_dir / "config.yaml").write_text("logging: {hard_cases: {confidence: 1.0}}", encoding="utf-8")
    assert pillsnap(photo, "--exp", exp_dir, "--out", tmp_path / "drawn.png") == 0
    [line] = (exp_dir / "hard_cases" / "predict.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["reasons"] == ["low_confidence"]

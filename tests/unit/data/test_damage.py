"""Damaged files: counted once, limited, listed, and kept over a resume."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pillsnap.data.batches import Broken, ClassificationBatch, safe_collate
from pillsnap.data.damage import Damage, broken_in
from pillsnap.data.records import Problem
from pillsnap.errors import TooMuchDamageError
from tests.builders import write_image

pytestmark = pytest.mark.req("DAT-2")


def cut(*names: str) -> list[Broken]:
    return [Broken(name, f"{name} cannot be decoded", "truncated_image") for name in names]


def test_a_file_is_counted_once_however_often_it_is_met(tmp_path: Path) -> None:
    damage = Damage(tmp_path, 100, 0.5)
    assert [each.image_path for each in damage.note(cut("a.png", "b.png"), "classification")] == ["a.png", "b.png"]
    assert damage.note(cut("a.png"), "classification") == []
    assert damage.note(cut("b.png"), "detection") == []
    assert len(damage) == 2
    assert damage.share == pytest.approx(0.02)


def test_what_the_reader_found_counts_where_it_is_damage(tmp_path: Path) -> None:
    damage = Damage(tmp_path, 98, 0.5)
    kinds = ("empty_image", "broken_json", "stray_image", "missing_label", "box_outside", "missing_label")
    damage.note_index(Problem(kind, f"{number}.png", "detail") for number, kind in enumerate(kinds))
    assert damage.by_kind() == {"empty_image": 1, "broken_json": 1}
    assert damage.share == pytest.approx(0.02)
    problems = damage.summary()["skipped_details"]["index_problems"]
    assert problems == {"missing_label": 2, "empty_image": 1, "broken_json": 1, "stray_image": 1, "box_outside": 1}


def test_a_run_on_some_of_the_pictures_is_judged_by_these_and_by_what_the_reader_saw(tmp_path: Path) -> None:
    damage = Damage(tmp_path, 100, 0.5, num_indexed=990)
    damage.note_index(Problem("empty_image", f"{number}.png", "") for number in range(10))
    assert damage.share == pytest.approx(0.01)
    damage.note(cut("a.png", "b.png"), "classification")
    assert damage.share == pytest.approx(0.01 + 0.02 * 0.99)


def test_a_share_at_the_limit_is_put_up_with_and_one_above_it_is_not(tmp_path: Path) -> None:
    damage = Damage(tmp_path / "data", 100, 0.02)
    damage.note(cut("a.png", "b.png"), "classification")
    damage.require_little(tmp_path)
    assert list(tmp_path.iterdir()) == []
    damage.note([Broken("c.png", "gone", "missing_file")], "detection")
    with pytest.raises(TooMuchDamageError) as caught:
        damage.require_little(tmp_path)
    text = str(caught.value)
    assert caught.value.exit_code == 3
    assert "3 files" in text
    assert "3.00% of the pictures (2 truncated_image, 1 missing_file); data.max_corruption allows 2.00%" in text
    assert "\n  truncated_image: a.png\n  truncated_image: b.png\n  missing_file: c.png\n" in text
    assert "more with data.max_corruption=SHARE" in text


def test_the_message_has_the_first_files_and_the_list_all_of_them(tmp_path: Path) -> None:
    damage = Damage(tmp_path, 100, 0.01)
    damage.note(cut(*(f"{number}.png" for number in range(30))), "classification")
    with pytest.raises(TooMuchDamageError, match="19.png\n  and 10 more\n.*Copy") as caught:
        damage.require_little(tmp_path / "exp")
    path = tmp_path / "exp" / "reports" / "damaged.json"
    assert str(path) in str(caught.value)
    content = json.loads(path.read_text())
    assert (content["damaged"], content["share"], content["max_corruption"]) == (30, 0.3, 0.01)
    assert content["kinds"]["truncated_image"][29] == {
        "path": "29.png",
        "reason": "29.png cannot be decoded",
        "places": ["classification"],
    }


def test_the_summary_counts_by_kind_and_by_place_with_a_few_examples(tmp_path: Path) -> None:
    damage = Damage(tmp_path, 100, 0.5)
    damage.note_index([Problem("empty_image", "z.png", "")])
    damage.note(cut(*(f"{number}.png" for number in range(7))), "classification")
    damage.note(cut("0.png"), "evaluation")
    summary = damage.summary()
    assert summary["skipped"] == {"truncated_image": 7, "empty_image": 1}
    details = summary["skipped_details"]
    assert details["by_place"] == {
        "index": {"empty_image": 1},
        "classification": {"truncated_image": 7},
        "evaluation": {"truncated_image": 1},
    }
    assert details["examples"]["truncated_image"] == ["0.png", "1.png", "2.png", "3.png", "4.png"]


def test_a_resume_goes_on_counting(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    before, after = Damage(tmp_path, 100, 0.5), Damage(tmp_path, 100, 0.5)
    before.note_index([Problem("empty_image", "z.png", "")])
    before.note([*cut("a.png"), Broken("gone.png", "is gone", "missing_file")], "detection")
    after.load_state(json.loads(json.dumps(before.state())))
    assert after.by_kind() == {"truncated_image": 1, "missing_file": 1}, "the reader finds its own again"
    assert after.note(cut("a.png"), "classification") == []


def test_a_file_that_was_mended_meanwhile_is_forgotten(tmp_path: Path) -> None:
    mended, same, back = tmp_path / "a.png", write_image(tmp_path / "b.png"), tmp_path / "c.png"
    mended.write_bytes(b"half")
    before, after = Damage(tmp_path, 100, 0.5), Damage(tmp_path, 100, 0.5)
    before.note(cut(mended.name, same.name, back.name), "classification")
    write_image(mended)
    write_image(back)
    after.load_state(before.state())
    assert [each["path"] for each in json.loads(after.write(tmp_path).read_text())["kinds"]["truncated_image"]] == [
        same.name
    ]


def test_a_file_written_anew_with_the_same_size_is_forgotten_too(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.png")
    before, after = Damage(tmp_path, 100, 0.5), Damage(tmp_path, 100, 0.5)
    before.note(cut("a.png"), "classification")
    os.utime(path, ns=(1, 1))
    after.load_state(before.state())
    assert len(after) == 0


def test_without_a_limit_and_without_pictures_nothing_is_raised(tmp_path: Path) -> None:
    damage = Damage.unlimited()
    assert damage.share == 0
    damage.note(cut("a.png"), "classification")
    damage.require_little(tmp_path)


def test_a_batch_tells_its_broken_pictures_whatever_is_left_of_it() -> None:
    broken = cut("a.png")
    assert broken_in(safe_collate(broken)) == broken
    assert broken_in(safe_collate([])) == []
    assert broken_in("what another loader yields") == []
    assert isinstance(safe_collate([]), list)
    assert not isinstance(safe_collate([]), ClassificationBatch)

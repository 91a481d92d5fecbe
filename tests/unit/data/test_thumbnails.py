from __future__ import annotations

import logging
import os
from pathlib import Path

import cv2
import pytest

from pillsnap.data import thumbnails
from pillsnap.data.images import decode_rgb
from pillsnap.data.thumbnails import ENTRY, SIDE_PX, load_thumbnails
from tests.builders import write_image

pytestmark = pytest.mark.req("DAT-1")

NAMES = ["a.png", "b.png", "sub/c.png"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number, name in enumerate(NAMES):
        write_image(tmp_path / "data" / name, seed=number)
    return tmp_path / "data"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note the pictures that are decoded."""
    seen: list[str] = []
    plain = thumbnails._thumbnail

    def noting(path: Path) -> bytes | None:
        seen.append(path.name)
        return plain(path)

    monkeypatch.setattr(thumbnails, "_thumbnail", noting)
    return seen


def test_a_thumbnail_has_the_means_of_the_pictures_cells(root: Path) -> None:
    found = load_thumbnails(root, NAMES, None)
    image = decode_rgb(root / "b.png")  # 96 x 128: cells of 4 x 5.33 pixels
    expected = cv2.resize(image, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA)
    assert found.places.tolist() == [0, 1, 2]
    assert found.pixels[1].tolist() == expected.reshape(-1).tolist()


def test_pictures_seen_before_are_not_decoded_again(root: Path, tmp_path: Path, decoded: list[str]) -> None:
    first = load_thumbnails(root, NAMES[:2], tmp_path / "cache")
    again = load_thumbnails(root, NAMES, tmp_path / "cache")
    assert decoded == ["a.png", "b.png", "c.png"]
    assert again.pixels[:2].tolist() == first.pixels.tolist()
    assert load_thumbnails(root, NAMES[::-1], tmp_path / "cache").pixels.tolist() == again.pixels[::-1].tolist()


def test_a_changed_picture_is_decoded_again(root: Path, tmp_path: Path, decoded: list[str]) -> None:
    before = load_thumbnails(root, NAMES, tmp_path / "cache")
    write_image(root / "a.png", seed=9)
    os.utime(root / "a.png", ns=(1, 1))
    after = load_thumbnails(root, NAMES, tmp_path / "cache")
    assert decoded[3:] == ["a.png"]
    assert after.pixels[0].tolist() != before.pixels[0].tolist()


def test_broken_pictures_are_left_out_and_not_tried_again(root: Path, tmp_path: Path, decoded: list[str]) -> None:
    (root / "b.png").write_bytes(b"\x89PNG not really")
    for _ in range(2):
        found = load_thumbnails(root, [*NAMES, "gone.png"], tmp_path / "cache")
        assert found.places.tolist() == [0, 2]
    assert len(decoded) == 4


def test_what_a_killed_process_left_unfinished_is_cut_off(root: Path, tmp_path: Path, decoded: list[str]) -> None:
    load_thumbnails(root, NAMES[:2], tmp_path / "cache")
    (path,) = (tmp_path / "cache").iterdir()
    path.write_bytes(path.read_bytes()[:-100])
    found = load_thumbnails(root, NAMES, tmp_path / "cache")
    assert decoded == ["a.png", "b.png", "b.png", "c.png"]
    assert len(found.places) == 3
    assert path.stat().st_size == 3 * ENTRY.itemsize


def test_a_place_that_cannot_be_written_costs_time_only(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "pillsnap")
    (tmp_path / "file").touch()
    assert len(load_thumbnails(root, NAMES, tmp_path / "file" / "cache").places) == 3
    assert "the next start reads these pictures again" in caplog.text


def test_blocks_are_put_together_in_order(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = load_thumbnails(root, NAMES, None)
    monkeypatch.setattr(thumbnails, "PICTURES_A_BLOCK", 2)
    monkeypatch.setattr(thumbnails, "PICTURES_A_JOB", 1)
    assert load_thumbnails(root, NAMES, tmp_path / "cache").pixels.tolist() == whole.pixels.tolist()


def test_no_pictures_have_no_thumbnails(tmp_path: Path) -> None:
    assert load_thumbnails(tmp_path, [], tmp_path).pixels.shape == (0, SIDE_PX * SIDE_PX * 3)

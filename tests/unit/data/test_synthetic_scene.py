from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from pillsnap.boxes import iou_matrix
from pillsnap.data.randomness import sample_generator
from pillsnap.data.synthetic_drugs import SHAPES, Drug, invent_drugs
from pillsnap.data.synthetic_scene import Photograph, PlacedPill, Shot, take_photograph

SIZE_WH = (244, 320)
FROM_ABOVE = Shot(background=2, side=0, light=2, latitude=90, longitude=0)


def photograph(drug: Drug, shot: Shot = FROM_ABOVE, rotation_deg: float = 0.0, seed: int = 0) -> Photograph:
    pill = PlacedPill(drug, (SIZE_WH[0] / 2, SIZE_WH[1] / 2), rotation_deg)
    return take_photograph([pill], shot, SIZE_WH, sample_generator(seed))


def drug_of(shape: str) -> Drug:
    return next(drug for drug in invent_drugs(60, seed=42) if drug.shape == shape)


@pytest.mark.parametrize("latitude", [60, 90])
@pytest.mark.parametrize("shape", list(SHAPES))
def test_the_box_is_tight_around_the_mask(shape: str, latitude: int) -> None:
    picture = photograph(drug_of(shape), replace(FROM_ABOVE, latitude=latitude), rotation_deg=40)
    rows, columns = np.nonzero(picture.masks[0])
    x, y, w, h = picture.box_xywh(0)
    assert (x, y) == (columns.min(), rows.min())
    assert (x + w - 1, y + h - 1) == (columns.max(), rows.max())


@pytest.mark.parametrize("latitude", [60, 75, 90])
def test_the_mask_covers_the_pixels_that_have_the_pills_colour(latitude: int) -> None:
    # On the grey tray only a red pill is red; half-covered pixels of the rim may fall either way.
    red = replace(drug_of("oval"), rgbs=((200, 30, 30),), gloss=0.1)
    picture = photograph(red, replace(FROM_ABOVE, latitude=latitude), rotation_deg=30)
    pixels = picture.image.astype(int)
    is_red = pixels[:, :, 0] - pixels[:, :, 1:].max(axis=2) > 30
    assert (is_red & picture.masks[0]).sum() / (is_red | picture.masks[0]).sum() > 0.95


def test_a_pill_measures_what_its_drug_says() -> None:
    oblong = drug_of("oblong")
    _, _, width, height = photograph(oblong).box_xywh(0)
    assert width == pytest.approx(oblong.long_mm * 22 * 244 / 976, abs=1.5)
    assert height == pytest.approx(oblong.short_mm * 22 * 244 / 976, abs=1.5)


def test_longitude_turns_the_pill() -> None:
    oblong = drug_of("oblong")
    _, _, width, height = photograph(oblong, rotation_deg=90).box_xywh(0)
    _, _, width_before, height_before = photograph(oblong).box_xywh(0)
    assert (width, height) == pytest.approx((height_before, width_before), abs=1)


def test_a_lower_camera_sees_the_face_foreshortened_and_the_side_of_the_pill() -> None:
    flat, thick = (replace(drug_of("round"), thick_mm=thick) for thick in (0.5, 6.0))
    low = replace(FROM_ABOVE, latitude=60)
    _, _, width, height = photograph(flat, low).box_xywh(0)
    # The outline of a thin disc shrinks by sin 60; its thickness adds at most cos 60 of it.
    assert height == pytest.approx(width * np.sin(np.radians(60)), abs=0.5 * 0.5 * 5.5 + 1.5)
    assert photograph(thick, low).box_xywh(0)[3] > height + 8


def test_front_and_back_differ_by_their_imprint() -> None:
    front, back = (photograph(drug_of("oval"), replace(FROM_ABOVE, side=side)) for side in (0, 1))
    assert np.abs(front.image.astype(int) - back.image)[front.masks[0]].max() > 25
    assert (front.masks[0] ^ back.masks[0]).mean() < 0.01 * front.masks[0].mean()


def test_the_lamps_colour_everything() -> None:
    means = [photograph(drug_of("round"), replace(FROM_ABOVE, light=light)).image.mean((0, 1)) for light in range(3)]
    blue_to_red = [mean[2] / mean[0] for mean in means]
    assert blue_to_red[0] < 0.9 < blue_to_red[2] < 1.06 < blue_to_red[1]  # warm bulb, neutral, daylight


def test_the_three_backgrounds_are_told_apart() -> None:
    corners = [
        photograph(drug_of("round"), replace(FROM_ABOVE, background=background)).image[:60, :60].astype(float)
        for background in range(3)
    ]
    assert all(np.abs(a.mean((0, 1)) - b.mean((0, 1))).max() > 20 for a, b in combinations(corners, 2))


def test_the_same_randomness_gives_the_same_picture_and_another_gives_other_noise() -> None:
    drug = drug_of("capsule")
    assert np.array_equal(photograph(drug).image, photograph(drug).image)
    assert not np.array_equal(photograph(drug).image, photograph(drug, seed=1).image)


def test_a_shadow_darkens_the_tray_beside_the_pill_and_is_not_part_of_it() -> None:
    picture = photograph(drug_of("round"))
    x, y, w, h = picture.box_xywh(0)
    grey = picture.image.mean(axis=2)
    beside = grey[y + h + 1 : y + h + 4, x + w // 3 : x + 2 * w // 3].mean()
    assert beside < grey[-40:, x : x + w].mean() - 15
    assert not picture.masks[0][y + h :].any()


def test_pills_of_one_picture_keep_their_order() -> None:
    drugs = [drug_of("round"), drug_of("oval")]
    places = [(60.0, 80.0), (180.0, 240.0)]
    pills = [PlacedPill(drug, place, 0.0) for drug, place in zip(drugs, places, strict=True)]
    picture = take_photograph(pills, FROM_ABOVE, SIZE_WH, sample_generator(0))
    boxes = [picture.box_xywh(number) for number in range(2)]
    assert [(x + w / 2, y + h / 2) for x, y, w, h in boxes] == [pytest.approx(place, abs=1.5) for place in places]
    corners = np.array([[x, y, x + w, y + h] for x, y, w, h in boxes], np.float32)
    assert iou_matrix(corners, corners)[0, 1] == 0

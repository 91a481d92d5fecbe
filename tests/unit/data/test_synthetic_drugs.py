from __future__ import annotations

import pytest

from pillsnap.data.synthetic_drugs import COLORS, SHAPES, invent_drugs, invent_more_drugs


def test_the_same_seed_invents_the_same_drugs() -> None:
    assert invent_drugs(12, seed=3) == invent_drugs(12, seed=3)
    assert invent_drugs(12, seed=3) != invent_drugs(12, seed=4)


@pytest.mark.parametrize("seed", [0, 42, 1234])
def test_twenty_drugs_all_differ_in_shape_and_colour(seed: int) -> None:
    looks = {(drug.shape, drug.colors) for drug in invent_drugs(20, seed)}
    assert len(looks) == 20


def test_hundreds_of_drugs_have_their_own_code_and_imprint() -> None:
    drugs = invent_drugs(400, seed=42)
    assert len({drug.code for drug in drugs}) == 400
    assert len({(drug.front.text, drug.back.text) for drug in drugs}) == 400
    assert [drug.code for drug in drugs] == sorted(drug.code for drug in drugs)


def test_every_shape_occurs_and_only_capsules_have_two_colours() -> None:
    drugs = invent_drugs(60, seed=42)
    assert {drug.shape for drug in drugs} == set(SHAPES)
    assert {len(drug.colors) for drug in drugs if drug.is_capsule} == {2}
    assert {len(drug.colors) for drug in drugs if not drug.is_capsule} == {1}
    assert {color for drug in drugs for color in drug.colors} <= set(COLORS)


def test_sizes_make_pills_of_190_to_430_pixels_at_full_size() -> None:
    long_px = [22 * drug.long_mm for drug in invent_drugs(200, seed=42)]
    assert 190 <= min(long_px) <= max(long_px) <= 430


def test_more_drugs_have_codes_and_imprints_of_their_own() -> None:
    known = invent_drugs(60, seed=42)
    more = invent_more_drugs(20, 42, known)
    assert more == invent_more_drugs(20, 42, known) != invent_more_drugs(20, 43, known)
    assert len({drug.code for drug in known + more}) == 80
    assert len({(drug.front.text, drug.back.text) for drug in known + more}) == 80

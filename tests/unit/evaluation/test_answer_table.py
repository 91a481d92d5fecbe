"""Every answer lands beside the pill it is for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pillsnap.data.items import ClassificationItems
from pillsnap.data.records import Picture, Records
from pillsnap.evaluation.answer_table import answered_items, tabulate
from pillsnap.evaluation.streaming import AnswerStream, ClassificationPredictions, summarise
from tests.unit.evaluation.classifier_case import softmax

pytestmark = pytest.mark.req("VAL-1")


CODES = ["K-0", "K-1", "K-2"]
RECORDS = Records.from_pictures(
    [
        Picture("a.png", "single", "K-1", "shot a", "aihub576", "", 9, 9),
        Picture("b.png", "combo", None, "shot b", "aihub576", "", 9, 9, [(0, 0, 4, 4), (4, 4, 8, 8)], ["K-2", "K-9"]),
        Picture("c.png", "single", "K-8", "shot c", "aihub576", "", 9, 9, [(0, 0, 4, 4)], ["K-8"]),
        Picture("d.png", "single", "K-0", "shot d", "aihub576", "", 9, 9),
    ]
)
ITEMS = ClassificationItems(np.array([0, 1, 1, 2, 3]), np.array([-1, 0, 1, 0, -1]), np.array([1, 2, -1, -1, 0]))
LOGITS = np.array([[0, 3, 1], [0, 1, 2], [5, 0, 0], [0, 0, 1], [1, 2, 0]], np.float32)


def answers_to(places: list[int], *, keep: bool = True) -> ClassificationPredictions:
    stream = AnswerStream()
    labels = torch.from_numpy(ITEMS.labels[places])
    stream.add(labels, [RECORDS.sample_id(int(row)) for row in ITEMS.rows[places]])
    stream.add_answers(summarise(torch.from_numpy(LOGITS[places]), labels, keep_logits=keep))
    return stream.finish(0.0, [])


def test_a_row_tells_the_pill_and_the_answer() -> None:
    table = tabulate(answers_to([0, 1, 2, 3, 4]), RECORDS, ITEMS, CODES)
    assert table.image_path == ["a.png", "b.png", "b.png", "c.png", "d.png"]
    assert table.group == ["shot a", "shot b", "shot b", "shot c", "shot d"]
    assert table.box.tolist() == [-1, 0, 1, 0, -1]
    assert table.pred_code == ["K-1", "K-2", "K-0", "K-2", "K-1"]
    assert table.rank.tolist() == [0, 0, -1, -1, 1]
    assert table.top5_codes[0] == ["K-1", "K-2", "K-0"]
    assert table.sample_id[0] == str(RECORDS.sample_id(0))
    np.testing.assert_allclose(table.confidence, softmax(LOGITS).max(axis=1), rtol=1e-6)
    assert table.accepted.all()


def test_drugs_the_model_does_not_know_have_their_code_as_labelled() -> None:
    table = tabulate(answers_to([0, 1, 2, 3, 4]), RECORDS, ITEMS, CODES)
    assert table.true_code == ["K-1", "K-2", "K-9", "K-8", "K-0"]


def test_pictures_that_could_not_be_decoded_have_no_row() -> None:
    found = answers_to([1, 2, 4])
    assert answered_items(found, RECORDS, ITEMS).tolist() == [1, 2, 4]
    assert tabulate(found, RECORDS, ITEMS, CODES).true_code == ["K-2", "K-9", "K-0"]


def test_confidences_are_those_at_the_temperature() -> None:
    table = tabulate(answers_to([0, 1]), RECORDS, ITEMS, CODES, temperature=2.0)
    wanted = np.sort(softmax(LOGITS[:2] / 2), axis=1)[:, ::-1]
    np.testing.assert_allclose(np.array(table.top5_confidences), wanted, atol=1e-3)


def test_answers_at_the_threshold_or_above_are_accepted() -> None:
    scores = np.array([0.1, 0.5, 0.9])
    table = tabulate(answers_to([0, 1, 2]), RECORDS, ITEMS, CODES, scores=scores, threshold=0.5)
    assert table.accepted.tolist() == [False, True, True]
    np.testing.assert_allclose(table.score, scores, rtol=1e-6)


def test_a_temperature_without_logits_is_refused() -> None:
    with pytest.raises(ValueError, match=r"temperature 2 need the logits .* Pass keep_logits=True"):
        tabulate(answers_to([0], keep=False), RECORDS, ITEMS, CODES, temperature=2.0)


def test_answers_to_other_items_are_refused() -> None:
    with pytest.raises(ValueError, match=r"answer 1 is for picture .* does not come next among the 5 items"):
        answered_items(answers_to([4, 0]), RECORDS, ITEMS)

import pytest

from pillsnap.config.keys import KEYS

pytestmark = pytest.mark.req("UTL-1")


@pytest.mark.parametrize(
    ("unknown", "nearest"),
    [
        ("batch_szie", ["train.batch_size"]),
        ("train.learning_rate", ["train.lr"]),
        ("train.classification.learning_rate", ["train.classification.lr"]),
        ("train.classificaton.lr", ["train.classification.lr"]),
        ("train.detection.batch", ["train.detection.batch_size"]),
        ("dataloader.workers", ["dataloader.num_workers"]),
        ("data.val_fraction", ["data.split.val_fraction"]),
        ("loss.label-smoothing", ["loss.label_smoothing"]),
        ("patience", ["train.early_stopping.patience"]),
        ("epochs", ["train.classification.epochs", "train.detection.epochs"]),
        ("Train.LR", ["train.lr"]),
        ("quux", []),
    ],
)
def test_the_nearest_key_is_found_in_the_whole_tree(unknown: str, nearest: list[str]) -> None:
    assert KEYS.nearest(unknown, among_sections=False) == nearest


def test_a_section_is_compared_with_sections() -> None:
    assert KEYS.nearest("data.progresive_validation", among_sections=True) == ["data.progressive_validation"]


def test_without_a_near_key_the_keys_of_the_section_are_listed() -> None:
    assert KEYS.advice("logging.quux", among_sections=False) == (
        "the keys of logging are: step_log_interval, profile_interval, hard_cases"
    )
    assert KEYS.advice("quux", among_sections=False).startswith("the keys of the configuration are: paths, data, model")
    in_train = KEYS.advice("train.quux", among_sections=False)
    assert in_train.startswith("the keys of train are: strategy, interleave_ratio, tasks")
    assert in_train.endswith(", ...")
    assert KEYS.advice("train.quux.zzz", among_sections=False) == in_train

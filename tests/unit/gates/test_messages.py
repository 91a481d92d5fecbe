import pytest

from pillsnap.gates.messages import Text, choose_language


@pytest.mark.req("ADV-2")
@pytest.mark.parametrize(
    ("setting", "environment", "expected"),
    [
        ("ko", {"LANG": "en_US.UTF-8"}, "ko"),
        ("en", {"LANG": "ko_KR.UTF-8"}, "en"),
        ("auto", {"LANG": "ko_KR.UTF-8"}, "ko"),
        ("auto", {"LANG": "de_DE.UTF-8"}, "en"),
        ("auto", {"LANG": "en_US.UTF-8", "LC_ALL": "ko_KR.UTF-8"}, "ko"),
        ("auto", {"LANG": "ko_KR.UTF-8", "LC_MESSAGES": "C"}, "en"),
        ("auto", {"LANG": "ko_KR.UTF-8", "LC_ALL": ""}, "ko"),
        ("auto", {}, "en"),
    ],
)
def test_the_language_is_the_one_set_or_that_of_the_locale(
    setting: str, environment: dict[str, str], expected: str
) -> None:
    assert choose_language(setting, environment) == expected


def test_the_process_own_locale_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "ko_KR.UTF-8")
    assert choose_language() == "ko"


def test_a_text_is_filled_in() -> None:
    assert Text("Stage {stage} 미달", "Stage {stage} missed").to("ko", stage=2) == "Stage 2 미달"

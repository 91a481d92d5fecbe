import io

import pytest

from pillsnap.gates.terminal import NO_CHOICE, WIDTH, Terminal, box


class Screen(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.req("ADV-2")
@pytest.mark.parametrize(
    ("typed", "choice", "prompts"), [("1\n", "1", 1), (" 3 \n", "3", 1), ("yes\n\n4\n2\n", "2", 4), ("", NO_CHOICE, 1)]
)
def test_the_question_is_asked_until_it_is_answered(typed: str, choice: str, prompts: int) -> None:
    screen = Screen()
    assert Terminal(Screen(typed), screen).ask("[1-3]: ") == choice
    assert screen.getvalue().count("[1-3]: ") == prompts


@pytest.mark.req("ADV-2")
@pytest.mark.parametrize(
    ("stdin", "stdout"), [(Screen(), io.StringIO()), (io.StringIO(), Screen()), (io.StringIO(), io.StringIO())]
)
def test_both_ends_must_be_a_terminal(stdin: io.StringIO, stdout: io.StringIO) -> None:
    assert not Terminal(stdin, stdout).is_interactive
    assert Terminal(Screen(), Screen()).is_interactive


@pytest.mark.req("ADV-1")
def test_a_box_is_drawn_with_its_title_in_the_middle() -> None:
    lines = box("평가", [["first"], [], ["second", "third"]]).strip("\n").split("\n")
    assert lines[0] == f"╔{'═' * WIDTH}╗"
    assert lines[1] == f"║{' ' * 31}평가{' ' * 31}║"  # two columns a letter
    assert lines[3:] == ["║ first", "║", "║ second", "║ third", f"╚{'═' * WIDTH}╝"]


def test_a_terminal_without_korean_gets_question_marks() -> None:
    raw = io.BytesIO()
    stdout = io.TextIOWrapper(raw, encoding="ascii")
    Terminal(io.StringIO(), stdout).show("score 점수")
    assert raw.getvalue() == b"score ??"
    stdout.close()

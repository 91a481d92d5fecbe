import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
READMES = [ROOT / "README.md", ROOT / "README.ko.md"]


def tree_of(readme: Path) -> set[str]:
    """Return the Python files named in a README's file tree, as paths relative to the root."""
    text = readme.read_text(encoding="utf-8")
    tree = text[text.index("```\nconfig.yaml ") :].split("```")[1]
    folders: list[str] = []
    files = set()
    for line in tree.strip().splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        name = line.split()[0]
        del folders[depth:]
        folders.append(name)
        if name.endswith(".py"):
            files.add("".join(folders))
    return files


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.name)
def test_the_file_tree_names_every_module_and_no_other(readme: Path) -> None:
    modules = (path for folder in ("pillsnap", "src", "scripts") for path in (ROOT / folder).rglob("*.py"))
    assert tree_of(readme) == {path.relative_to(ROOT).as_posix() for path in modules if path.name != "__init__.py"}


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.name)
def test_every_link_leads_to_a_file(readme: Path) -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", readme.read_text(encoding="utf-8"))
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_both_languages_show_the_same_commands_and_exit_codes() -> None:
    shown = []
    for readme in READMES:
        text = readme.read_text(encoding="utf-8")
        commands = re.findall(r"^(?:bash|pillsnap|python|source) .*?(?= {2,}#|$)", text, flags=re.MULTILINE)
        shown.append((commands, re.findall(r"^\| (\d+) \|", text, flags=re.MULTILINE)))
    assert shown[0] == shown[1]
    assert shown[0][1] == ["0", "1", "2", "3", "4", "5", "130"]

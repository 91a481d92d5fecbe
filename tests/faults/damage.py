"""Ways in which files of an experiment's checkpoints get damaged, as functions of their content and of chance."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

import torch

Files = dict[str, bytes]
"""Path relative to `checkpoints/` to content."""
Damage = Callable[[Files, random.Random], None]


def truncated(files: Files, chance: random.Random) -> None:
    """Cut off one file anywhere."""
    name = _any(files, chance)
    files[name] = files[name][: chance.randrange(len(files[name]))]


def bits_flipped(files: Files, chance: random.Random) -> None:
    """Flip one to eight bits of one file anywhere."""
    name = _any(files, chance)
    content = bytearray(files[name])
    for _ in range(chance.choice((1, 1, 1, 8))):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    files[name] = bytes(content)


def block_zeroed(files: Files, chance: random.Random) -> None:
    """Replace a part of one file by zeros, as a power cut on some file systems does."""
    name = _any(files, chance)
    begin = chance.randrange(len(files[name]))
    length = min(chance.choice((16, 512, 4096)), len(files[name]) - begin)
    files[name] = files[name][:begin] + bytes(length) + files[name][begin + length :]


def grown(files: Files, chance: random.Random) -> None:
    """Append noise to one file."""
    files[_any(files, chance)] += chance.randbytes(chance.randrange(1, 200))


def emptied(files: Files, chance: random.Random) -> None:
    """Leave nothing of the content of one file."""
    files[_any(files, chance)] = b""


def deleted(files: Files, chance: random.Random) -> None:
    """Remove one file."""
    del files[_any(files, chance)]


def tasks_swapped(files: Files, chance: random.Random) -> None:
    """Swap the content of the two files of one moment."""
    number = chance.choice(_moments(files))[: len("moments/000001")]
    _swap(files, *(name for name in _moments(files) if name.startswith(number)))


def any_swapped(files: Files, chance: random.Random) -> None:
    """Swap the content of two moment files: of the other task, of the other moment, or both. May damage two moments."""
    _swap(files, *chance.sample(_moments(files), 2))


def replaced(files: Files, chance: random.Random) -> None:
    """Put another checkpoint, whole but never saved here, in place of a moment's file."""
    sink = io.BytesIO()
    torch.save({"task": "classification", "weights": torch.full((16,), chance.random())}, sink)
    files[chance.choice(_moments(files))] = sink.getvalue()


def manifest_edited(files: Files, chance: random.Random) -> None:
    """Make one manifest say something else in valid JSON: other values, missing keys, wrong types."""
    name = chance.choice(("manifest.json", "manifest.copy.json"))
    manifest = json.loads(files[name])
    chance.choice(EDITS)(manifest)
    files[name] = json.dumps(manifest).encode()


def manifest_of_another_shape(files: Files, chance: random.Random) -> None:
    """Replace one manifest by JSON that is no manifest."""
    name = chance.choice(("manifest.json", "manifest.copy.json"))
    files[name] = chance.choice((b"[]", b"null", b"7", b'"x"', b"{}", b'{"moments": null}', b'{"moments": [3]}'))


def strangers_added(files: Files, chance: random.Random) -> None:
    """Add files that nobody saved, some under names of our own."""
    names = ("notes.txt", "moments/000009-classification.pt", "moments/.000009-detection.pt.1.tmp", "old.pt")
    files.update({name: chance.randbytes(50) for name in chance.sample(names, 2)})


def _any(files: Files, chance: random.Random) -> str:
    return chance.choice(sorted(name for name, content in files.items() if content))


def _moments(files: Files) -> list[str]:
    return sorted(name for name in files if PurePosixPath(name).parent.name == "moments")


def _swap(files: Files, one: str, other: str) -> None:
    files[one], files[other] = files[other], files[one]


EDITS: tuple[Callable[[dict[str, Any]], object], ...] = (
    lambda manifest: manifest.pop("moments"),
    lambda manifest: manifest.pop("sha256"),
    lambda manifest: manifest.update(moments=[]),
    lambda manifest: manifest.update(moments="none"),
    lambda manifest: manifest["moments"].reverse(),
    lambda manifest: manifest["moments"][0].update(loop_step=17),
    lambda manifest: manifest["moments"][0].pop("loop_step"),
    lambda manifest: manifest["moments"][0]["files"].pop("detection"),
    lambda manifest: manifest["moments"][0].update(files=[1, 2]),
    lambda manifest: manifest["moments"][0]["files"]["detection"].update(manifest["moments"][1]["files"]["detection"]),
)
# For these any content will do, that of a file damaged before too.
OF_BYTES: tuple[Damage, ...] = (truncated, bits_flipped, block_zeroed, grown, emptied, deleted, strangers_added)
SINGLE: tuple[Damage, ...] = (*OF_BYTES, tasks_swapped, replaced, manifest_edited, manifest_of_another_shape)

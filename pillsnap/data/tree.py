"""Walking the folders of a data set, and the errors for a data set that cannot be walked.

Links to folders are followed, because large sets lie on several disks. Hidden files (`._*` of macOS archives, `.cache`)
are passed over without a word.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeVar

from pillsnap.data.records import Problem
from pillsnap.data.scan_visits import Visits, is_text
from pillsnap.errors import DataError

T = TypeVar("T")
Look = Callable[[os.DirEntry[str], str], T]

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
MIN_IMAGE_BYTES = 100  # the real sets hold files of some dozen bytes that were cut off while copying
DEMO_HINT = "To see everything work without any data, run: bash scripts/train.sh --demo"


class FileEntry(NamedTuple):
    """One file: its posix path relative to the data root, its size in bytes and its time of change."""

    path: str
    size: int
    mtime_ns: int

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return split_suffix(self.name)[0]

    @property
    def suffix(self) -> str:
        """The suffix in lower case, with its dot."""
        return split_suffix(self.name)[1]

    @property
    def bare_path(self) -> str:
        """The path without the suffix."""
        return split_suffix(self.path)[0]

    @property
    def is_image(self) -> bool:
        """Whether the suffix is one of a picture."""
        return self.suffix in IMAGE_SUFFIXES


def split_suffix(path: str) -> tuple[str, str]:
    """Split a path or name at its suffix, which comes in lower case with its dot ("" where there is none)."""
    dot = path.rfind(".")
    has_suffix = path.rfind("/") + 1 < dot < len(path) - 1
    return (path[:dot], path[dot:].lower()) if has_suffix else (path, "")


class DataTree:
    """The folders below one data root; what is wrong with single entries is collected in `problems`.

    What was looked at is remembered in `visits`, so that a later start can tell whether it has changed.
    """

    def __init__(self, root: Path) -> None:
        """Remember the root; nothing is read yet."""
        self.root = root
        self.problems: list[Problem] = []
        self.visits = Visits()

    def has_folder(self, folder: str) -> bool:
        """Tell whether `folder` (posix, relative to the root) is a folder or a link to one."""
        return (self.root / folder).is_dir()

    def children(self, folder: str = "") -> tuple[list[str], list[FileEntry]]:
        """Return the folders and the files directly in `folder`, both sorted by name, hidden ones left out.

        A link that leads to a folder above it is left out as a problem; so is a link to nowhere.

        Raises:
            DataError: The folder cannot be read.
        """
        return self._list(folder, lambda _: self._entry)

    def contents(self, folder: str, suffix: str) -> tuple[list[str], list[tuple[str, bytes | OSError]]]:
        """Return the folders directly in `folder`, and (path, content) of its files that end in `suffix`.

        The files are read while the folder is open, in one go: the way from the root to each of them would cost as much
        as reading it. All of them are watched. A content that cannot be read is the error.

        Raises:
            DataError: The folder cannot be read.
        """
        folders, files = self._list(folder, lambda descriptor: self._reader(folder, descriptor, suffix))
        return folders, [file for file in files if file is not None]

    def files(self, folder: str = "") -> Iterator[FileEntry]:
        """Yield all files below `folder` in a fixed order.

        Raises:
            DataError: A folder cannot be read.
        """
        folders, files = self.children(folder)
        yield from files
        for child in folders:
            yield from self.files(child)

    def _list(self, folder: str, look_from: Callable[[int], Look[T]]) -> tuple[list[str], list[T]]:
        where = self.root / folder
        folders: list[str] = []
        files: list[T] = []
        prefix = f"{folder}/" if folder else ""
        try:
            with self.visits.opened(where, folder) as descriptor, os.scandir(descriptor) as entries:
                look = look_from(descriptor)
                for entry in sorted(entries, key=attrgetter("name")):
                    name = entry.name
                    path = prefix + name
                    if name[0] == "." or not (name.isascii() or self._is_text(path)):
                        continue
                    try:
                        if not entry.is_dir():
                            files.append(look(entry, path))
                        elif not entry.is_symlink() or self._can_enter(path):
                            folders.append(path)
                    except OSError as error:
                        self._note_broken_link(path, error)
        except OSError as error:
            raise DataError(
                f"Folder {where} cannot be read ({error.strerror}). The pictures and labels of a data set must be "
                f"readable. Give the permission back (chmod -R u+rX '{where}') or point data.root somewhere else."
            ) from error
        return folders, files

    def _is_text(self, path: str) -> bool:
        if is_text(path):
            return True
        shown = os.fsencode(path).decode(errors="replace")
        self.problems.append(Problem("bad_file_name", shown, "the name is not UTF-8; rename it (convmv -f cp949)"))
        return False

    def _can_enter(self, path: str) -> bool:
        if not self._leads_up(path):
            return True
        self.problems.append(Problem("link_loop", path, "is a link to a folder above it; not entered"))
        return False

    def _note_broken_link(self, path: str, error: OSError) -> None:
        self.visits.distrust(path)  # a disk that is mounted later changes nothing in this folder
        detail = f"leads nowhere ({error.strerror}); is a disk not mounted?"
        self.problems.append(Problem("broken_link", path, detail))

    def _entry(self, entry: os.DirEntry[str], path: str) -> FileEntry:
        status = entry.stat()
        if entry.is_symlink():
            self.visits.watch(path, status.st_size, status.st_mtime_ns)
        return FileEntry(path, status.st_size, status.st_mtime_ns)

    def _reader(self, folder: str, descriptor: int, suffix: str) -> Look[tuple[str, bytes | OSError] | None]:
        self.visits.watch_all(folder, suffix)
        content = self.visits.reader(folder, descriptor)

        def read(entry: os.DirEntry[str], path: str) -> tuple[str, bytes | OSError] | None:
            if not entry.name.lower().endswith(suffix):
                return None
            if entry.is_symlink():
                entry.stat()  # raises where it leads nowhere
            try:
                return path, content(entry.name)
            except OSError as error:
                self.visits.distrust_refused(path, error)
                # What people read is the whole path, as for any other file.
                return path, OSError(error.errno, error.strerror, str(self.root / path))

        return read

    def _leads_up(self, path: str) -> bool:
        """Tell whether a link leads to a folder through which it was reached, which would go on for ever."""
        target = (self.root / path).resolve()
        way = (self.root, *((self.root / parent) for parent in PurePosixPath(path).parents))
        return any(folder.resolve().is_relative_to(target) for folder in way)


def source_photo(name: str) -> str:
    """Return the name of the photograph that a file is a copy of: Roboflow adds `.rf.` and a hash to each copy."""
    return name.partition(".rf.")[0]


def empty_image_problem(image: FileEntry) -> Problem:
    """Return the problem of a picture file of less than `MIN_IMAGE_BYTES`, which is not opened."""
    return Problem("empty_image", image.path, f"has {image.size} bytes, which cannot be a picture; left out")


def require_folder(root: Path, layout: str) -> None:
    """Check that the data root is a folder.

    Args:
        root: The data root.
        layout: How the data must lie there, for the message.

    Raises:
        DataError: There is nothing, or a file.
    """
    if root.is_dir():
        return
    if root.exists():
        got = "is a file, not a folder"
    else:
        existing = next((parent for parent in root.absolute().parents if parent.is_dir()), Path("/"))
        got = f"does not exist (of its path, {existing} exists)"
    raise DataError(
        f"The data folder {root} {got}. The data must lie like this:\n{layout}\n"
        f"Set data.root=FOLDER to the place where they are. {DEMO_HINT}"
    )


def no_pictures_error(root: Path, layout: str, problems: Sequence[Problem]) -> DataError:
    """Return the error for a folder in which no usable picture was found, with what was found instead."""
    counts = Counter(problem.kind for problem in problems).most_common()
    listed = ", ".join(f"{kind} {number}" for kind, number in counts)
    got = (
        f"found only problems: {listed}; first: {problems[0].path}: {problems[0].detail}" if problems else "it is empty"
    )
    return DataError(
        f"The data folder {root} holds no usable picture ({got}). The data must lie like this:\n{layout}\n"
        f"Check data.root and data.reader; `pillsnap data check` lists all problems. {DEMO_HINT}"
    )

"""Damaged files of a data set: each counted once however often it is met, and a limit to how many a run puts up with.

Damage is a file that is there, or was when the data set was read, and cannot be used as it is: empty, cut off, not what
its name says, unreadable. Files that merely do not belong together (a picture without a label, a label without a
picture, strays, doubles, wrong names) or boxes that lie wrong are faults of the collection, which `pillsnap data check`
lists; copying the data set again would not mend them, so they do not count here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pillsnap.data.batches import Broken
from pillsnap.data.records import Problem
from pillsnap.errors import TooMuchDamageError
from pillsnap.jsonfile import save_json

INDEX = "index"
"""The place of what was found while the data set was read."""
INDEX_KINDS = frozenset({"empty_image", "broken_image", "broken_json", "broken_label"})
"""Problems of a reader that are damage; everything that fails to decode is."""
NUM_LISTED = 20  # in a message; the file has all
NUM_EXAMPLES = 5  # of each kind, in metrics.json
FILE_NAME = Path("reports", "damaged.json")  # below the experiment's folder


@dataclass(slots=True)
class DamagedFile:
    """One damaged file."""

    kind: str
    """A short fixed word, for counting."""
    reason: str
    stamp: list[int] | None
    """Size and time of change (ns) when it was found; None where there was no such file."""
    places: list[str] = field(default_factory=list)
    """Where it was met: `index`, the tasks, `evaluation`."""


class Damage:
    """The damaged files of one data set that a run has met so far."""

    def __init__(self, root: Path, num_pictures: int, max_share: float, *, num_indexed: int | None = None) -> None:
        """Begin with none.

        Args:
            root: The data root.
            num_pictures: Pictures of the run.
            max_share: `data.max_corruption`, 0..1.
            num_indexed: Pictures in the table of the whole data set, where the run uses only some; None: it uses all.
        """
        self._root = root
        self._num_pictures = num_pictures
        self._num_indexed = num_pictures if num_indexed is None else num_indexed
        self._max_share = max_share
        self._num_from_index = 0
        self._files: dict[str, DamagedFile] = {}
        self._problems: Counter[str] = Counter()

    @classmethod
    def unlimited(cls) -> Damage:
        """Return a count without a limit, for steps outside of a run."""
        return cls(Path(), 0, 1.0)

    def __len__(self) -> int:
        """Return the number of damaged files."""
        return len(self._files)

    def note_index(self, problems: Iterable[Problem]) -> None:
        """Take in what a reader found; of problems that are no damage only the number is kept."""
        for problem in problems:
            self._problems[problem.kind] += 1
            if problem.kind in INDEX_KINDS:
                self._num_from_index += self._note(problem.path, problem.kind, problem.detail, INDEX)

    def note(self, broken: Iterable[Broken], place: str) -> list[Broken]:
        """Take in pictures that could not be decoded; return those that are news.

        Args:
            broken: May name pictures that are known.
            place: Where they were met, such as the name of the task.
        """
        return [each for each in broken if self._note(each.image_path, each.kind, each.reason, place)]

    def _note(self, path: str, kind: str, reason: str, place: str) -> bool:
        known = self._files.get(path)
        if known is not None:
            if place not in known.places:
                known.places.append(place)
            return False
        self._files[path] = DamagedFile(kind, reason, self._stamp(path), [place])
        return True

    @property
    def share(self) -> float:
        """Share of the data set's pictures that is damaged, 0..1.

        What the reader found is a share of all it saw, what decoding found a share of the run's pictures, all of which
        the reader thought sound. For a run over the whole data set this comes to damaged files / all pictures.
        """
        num_seen = self._num_indexed + self._num_from_index
        if not num_seen:
            return 0.0
        num_decoded = len(self._files) - self._num_from_index
        decoded_share = num_decoded / self._num_pictures if self._num_pictures else 0.0
        return (self._num_from_index + decoded_share * self._num_indexed) / num_seen

    def require_little(self, exp_dir: Path) -> None:
        """Stop a run whose data set is damaged beyond the limit.

        Args:
            exp_dir: The experiment's folder; all files are listed in `reports/damaged.json` in it.

        Raises:
            TooMuchDamageError: The share is above the limit.
        """
        if self.share <= self._max_share:
            return
        list_path = self.write(exp_dir)
        shown = "\n".join(f"  {file.kind}: {path}" for path, file in list(self._files.items())[:NUM_LISTED])
        more = f"\n  and {len(self) - NUM_LISTED} more" if len(self) > NUM_LISTED else ""
        raise TooMuchDamageError(
            f"{len(self)} files in {self._root} are damaged, {self.share:.2%} of the pictures "
            f"({_listed(self.by_kind())}); data.max_corruption allows {self._max_share:.2%}. {list_path} "
            f"has all of them, the first are:\n{shown}{more}\nCopy them again from the source, or allow more with "
            "data.max_corruption=SHARE."
        )

    def by_kind(self) -> dict[str, int]:
        """Return the number of damaged files of each kind, the most frequent first."""
        return dict(Counter(file.kind for file in self._files.values()).most_common())

    def summary(self) -> dict[str, Any]:
        """Return what `reports/metrics.json` tells.

        Returns:
            `skipped` (files per kind) and `skipped_details`: their share, files per place and kind, some of each kind,
            and the number of all problems of the reader, be they damage or not.
        """
        examples: dict[str, list[str]] = {kind: [] for kind in self.by_kind()}
        places: dict[str, Counter[str]] = {}
        for path, file in self._files.items():
            if len(examples[file.kind]) < NUM_EXAMPLES:
                examples[file.kind].append(path)
            for place in file.places:
                places.setdefault(place, Counter())[file.kind] += 1
        details = {
            "share": self.share,
            "by_place": {place: dict(kinds) for place, kinds in places.items()},
            "examples": examples,
            "index_problems": dict(self._problems.most_common()),
        }
        return {"skipped": self.by_kind(), "skipped_details": details}

    def write(self, exp_dir: Path) -> Path:
        """Write all damaged files into `reports/damaged.json` of an experiment and return its path."""
        path = exp_dir / FILE_NAME
        path.parent.mkdir(parents=True, exist_ok=True)
        kinds: dict[str, list[dict[str, Any]]] = {kind: [] for kind in self.by_kind()}
        for name, file in self._files.items():
            kinds[file.kind].append({"path": name, "reason": file.reason, "places": file.places})
        content = {
            "root": str(self._root),
            "damaged": len(self),
            "share": self.share,
            "max_corruption": self._max_share,
            "kinds": kinds,
        }
        save_json(path, content)
        return path

    def state(self) -> dict[str, dict[str, Any]]:
        """Return what a checkpoint keeps: what only decoding has found. The reader finds the rest again."""
        return {path: asdict(file) for path, file in self._files.items() if file.places[0] != INDEX}

    def load_state(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Add what a checkpoint kept; files that have changed since are left out, for they may have been mended."""
        for path, values in state.items():
            file = DamagedFile(**values)
            if path not in self._files and file.stamp == self._stamp(path):
                self._files[path] = file

    def _stamp(self, path: str) -> list[int] | None:
        try:
            status = (self._root / path).stat()
        except OSError:
            return None
        return [status.st_size, status.st_mtime_ns]


def broken_in(batch: Any) -> list[Broken]:
    """Return the broken pictures among what a loader yielded: a batch, or the list of them where nothing else was."""
    broken: list[Broken] = batch if isinstance(batch, list) else getattr(batch, "broken", [])
    return broken


def _listed(kinds: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in kinds.items())

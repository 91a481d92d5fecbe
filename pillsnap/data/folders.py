"""Reader of photographs sorted into one folder per drug, without boxes.

    ROOT/<class>/**/*.jpg   or   ROOT/{train,val,test}/<class>/**/*.jpg

The folder's name is the class key; folders below it are read too. There are no labels, so such data train and test the
classifier only.
"""

from __future__ import annotations

from pathlib import Path

from pillsnap.data.images import image_size_wh
from pillsnap.data.records import SINGLE, Picture, Problem, Scan
from pillsnap.data.scan import Found, Reader, only_unit, read_all
from pillsnap.data.scan_units import Tables, Unit, UnitColumns, UnitFolder, UnitJob
from pillsnap.data.tree import MIN_IMAGE_BYTES, DataTree, FileEntry, empty_image_problem, source_photo
from pillsnap.data.yolo import PART_OF_FOLDER
from pillsnap.errors import BrokenImageError

SOURCE = "folders"
LAYOUT = """  one folder per drug, without boxes (data.reader=folders):
    ROOT/<drug>/*.jpg   or   ROOT/{train,val,test}/<drug>/*.jpg"""


def read_folders(root: Path) -> Scan:
    """Read all pictures below `root`.

    Args:
        root: The folder that holds the class folders, or the part folders that do.

    Returns:
        The pictures, all singles without boxes, and the problems. Paths are relative to `root`.

    Raises:
        DataError: The folder is missing or unreadable, or holds no usable picture.
    """
    return read_all(root, READER)


def read_units(job: UnitJob) -> Tables:
    """Read the data set, which is one unit.

    Raises:
        DataError: A folder cannot be read.
    """
    columns = UnitColumns()
    for unit in job.units:
        reader = _Reader(DataTree(Path(job.root)), columns.pictures)
        for folder in unit.folders:
            reader.read_part(folder.path, folder.part)
        columns.close_unit(unit.key, [*reader.problems, *reader.tree.problems], {}, reader.tree.visits)
    return columns.tables()


def discover(root: Path) -> Found:
    """Return the data set as one unit."""
    folders = [UnitFolder(PART_OF_FOLDER.get(part, ""), "images", part) for part in part_folders(root) or [""]]
    return Found([Unit("", tuple(folders))], [])


def part_folders(root: Path) -> list[str]:
    """Return the folders directly below `root` that are parts of a split: named like one, with folders in them."""
    return [part for part in PART_OF_FOLDER if (root / part).is_dir() and DataTree(root).children(part)[0]]


def folders_read(root: Path) -> list[str]:
    """Return the folders below `root` that the reader looks into."""
    return part_folders(root) or DataTree(root).children()[0]


READER = Reader(SOURCE, LAYOUT, discover, read_units, folders_read, only_unit)


class _Reader:
    """Collects pictures and problems while walking one data set."""

    def __init__(self, tree: DataTree, pictures: list[Picture]) -> None:
        self.tree = tree
        self.pictures = pictures
        self.problems: list[Problem] = []

    def read_part(self, folder: str, part: str) -> None:
        """Read the class folders in `folder` ("" for the root)."""
        class_folders, files = self.tree.children(folder)
        for file in files:
            if file.is_image:
                self._problem("stray_image", file.path, "does not lie in a class folder; left out")
        for class_folder in class_folders:
            images = [file for file in self.tree.files(class_folder) if file.is_image]
            if not images:
                self._problem("empty_class", class_folder, "is a class folder without a picture")
            for image in images:
                self._read_image(image, class_folder, part)

    def _read_image(self, image: FileEntry, class_folder: str, part: str) -> None:
        self.tree.visits.watch(*image)  # its header is read
        if image.size < MIN_IMAGE_BYTES:
            self.problems.append(empty_image_problem(image))
            return
        try:
            width, height = image_size_wh(self.tree.root / image.path)
        except BrokenImageError as error:
            self.tree.visits.distrust_refused(image.path, error.__cause__)
            self._problem("broken_image", image.path, f"its header cannot be read ({error.__cause__}); left out")
            return
        code = class_folder.rpartition("/")[2]
        self.pictures.append(
            Picture(
                image_path=image.path,
                task=SINGLE,
                code=code,
                group=f"{code}|{source_photo(image.bare_path.removeprefix(f'{class_folder}/'))}",
                source=SOURCE,
                part=part,
                width=width,
                height=height,
            )
        )

    def _problem(self, kind: str, path: str, detail: str) -> None:
        self.problems.append(Problem(kind, path, detail))

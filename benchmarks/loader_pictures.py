"""The pictures that loaders are compared on: drawn pills in a folder a drug, as PNG and as JPEG."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from pillsnap.data.synthetic import SyntheticSpec, draw_dataset

JPEG_QUALITY, JPEG_SUBSAMPLING = 90, "4:2:0"
TRAIN, VAL = "train", "val"


@dataclass(frozen=True, slots=True)
class PictureSet:
    """How many pictures there are and how large they are."""

    num_drugs: int
    per_drug: int
    """Different pictures of a drug for training; one more is for validation, which is not measured."""
    repeats: int
    """How often each of them lies in its folder, under different names: an epoch lasts longer, drawing does not."""
    size_wh: tuple[int, int]


def arrange_pictures(folder: Path, pictures: PictureSet) -> dict[str, Path]:
    """Draw pictures below `folder` and arrange them as readers of image folders want them.

    Args:
        folder: Where to draw; what is there from an earlier call with the same set is used again.
        pictures: How many, how large.

    Returns:
        "png" and "jpeg" -> a folder with `train/<drug>/*` and `val/<drug>/*`. Repeats are hard links.
    """
    width, height = pictures.size_wh
    spec = SyntheticSpec(
        num_drugs=pictures.num_drugs, singles_per_drug=pictures.per_drug + 1, num_combos=0, width=width, height=height
    )
    name = f"{spec.num_drugs}x{spec.singles_per_drug}-{width}x{height}"
    drawn = folder / f"drawn-{name}"
    draw_dataset(drawn, spec)
    roots = {kind: folder / f"{kind}-{name}-{pictures.repeats}" for kind in ("png", "jpeg")}
    for drug in sorted(path for path in drawn.glob("train/images/single/*/*")):
        for number, original in enumerate(sorted(drug.glob("*.png"))):
            part, repeats = (VAL, 1) if number == 0 else (TRAIN, pictures.repeats)
            place_png, place_jpeg = (root / part / drug.name / original.stem for root in roots.values())
            _link(original, place_png, ".png", repeats)
            jpeg = original.with_suffix(".jpg")
            if not jpeg.is_file():
                with Image.open(original) as image:
                    image.save(jpeg, quality=JPEG_QUALITY, subsampling=JPEG_SUBSAMPLING)
            _link(jpeg, place_jpeg, ".jpg", repeats)
    return roots


def mean_kilobytes(root: Path) -> float:
    """Return the mean size of the training files below `root`."""
    sizes = [path.stat().st_size for path in root.glob(f"{TRAIN}/*/*")]
    return sum(sizes) / len(sizes) / 1000


def _link(original: Path, place: Path, suffix: str, repeats: int) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    for number in range(repeats):
        link = place.with_name(f"{place.name}-{number}{suffix}")
        if not link.exists():
            link.hardlink_to(original)

"""Picture tables of any size, made of arrays: what the index of millions of files would hold, without the files."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pillsnap.data.records import COMBO, SCHEMA, SINGLE

PICTURES_PER_DRUG = 324  # the median of the real set
COMBO_SHARE = 1 / 175  # 15,000 of 2.6 million
PILLS = 4
COMBO_SHOTS = 3
WIDTH, HEIGHT = 976, 1280


def synthesise(num_pictures: int) -> pa.Table:
    """Return a table of `SCHEMA` with AI Hub's paths, sorted by path: combinations, then single pictures."""
    num_combos = round(num_pictures * COMBO_SHARE)
    return pa.concat_tables([_combos(num_combos), _singles(num_pictures - num_combos)]).combine_chunks()


def _singles(count: int) -> pa.Table:
    index = np.arange(count)
    drug, shot = np.divmod(index, PICTURES_PER_DRUG)
    code = _join("K-", _digits(drug + 1, 6))
    group, angle = np.divmod(shot, PICTURES_PER_DRUG // 18)
    background, side, light = _digits(group // 6, 1), _digits(group // 3 % 2, 1), _digits(group % 3, 1)
    folder = _join("train/images/single/TS_", _digits(drug // 50 + 1, 3), "_single/", code, "/")
    path = _join(folder, code, "_0_", background, "_", side, "_", light, "_75_", _digits(angle * 20, 3), "_200.png")
    boxes = np.tile(np.array([300, 500, 620, 840], np.float32), count)
    columns = {
        "image_path": path,
        "code": code,
        "group": _join(code, "|", background, "|", side, "|", light),
        "boxes_xyxy": _lists(boxes, 4, count),
        "box_codes": _lists(code, 1, count),
    }
    return _table(columns, count, SINGLE, 1 << 40)


def _combos(count: int) -> pa.Table:
    index = np.arange(count)
    folder, shot = np.divmod(index, COMBO_SHOTS)
    numbers = [_digits((folder * 7 + pill * 1000) % 118 + pill * 118 + 1, 6) for pill in range(PILLS)]
    key = _join("K-", pc.binary_join_element_wise(*numbers, "-"))
    archive = _join("train/images/combination/TS_", _digits(folder // 625 + 1, 3), "_combo/", _digits(folder, 6), "/")
    codes = np.stack([_join("K-", number).to_numpy(zero_copy_only=False) for number in numbers], axis=1).reshape(-1)
    columns = {
        "image_path": _join(archive, key, "_0_2_0_2_", _digits(70 + shot * 5, 2), "_000_200.png"),
        "code": pa.nulls(count, pa.string()),
        "group": key,
        "boxes_xyxy": _lists(np.tile(np.arange(16, dtype=np.float32) * 50, count), 16, count),
        "box_codes": _lists(pa.array(codes, pa.string()), PILLS, count),
    }
    return _table(columns, count, COMBO, 0)


def _table(columns: dict[str, pa.Array], count: int, task: str, first_id: int) -> pa.Table:
    constants = {"task": task, "source": "aihub576", "part": "train"}
    columns |= {name: pa.repeat(pa.scalar(value), count) for name, value in constants.items()}
    # Any numbers that are unique and spread do: the real ones are hashes of the paths.
    columns["sample_id"] = pa.array(
        (np.arange(count, dtype=np.uint64) + np.uint64(first_id)) * np.uint64(0x9E3779B97F4A7C15)
    )
    columns["width"] = pa.repeat(pa.scalar(WIDTH, pa.int32()), count)
    columns["height"] = pa.repeat(pa.scalar(HEIGHT, pa.int32()), count)
    return pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def _lists(values: pa.Array | NDArray[np.float32], length: int, count: int) -> pa.Array:
    return pa.ListArray.from_arrays(np.arange(count + 1, dtype=np.int32) * length, values)


def _digits(numbers: NDArray[np.int64], width: int) -> pa.Array:
    return pc.utf8_lpad(pc.cast(pa.array(numbers), pa.string()), width, "0")


def _join(*parts: pa.Array | str) -> pa.Array:
    return pc.binary_join_element_wise(*parts, "")

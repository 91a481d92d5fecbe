"""Checks that load models and let them answer: both best checkpoints, and both exported files."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from pillsnap.atomicfile import sha256_of
from pillsnap.boxes import FloatArray
from pillsnap.data import columns
from pillsnap.data.images import RgbImage, decode_rgb
from pillsnap.data.preprocess import box_view, frame_view, letterbox
from pillsnap.data.records import COMBO, SINGLE
from pillsnap.errors import DataError, PillError
from pillsnap.gates.evidence import Outcome, checkpoint_hashes, not_run, outcome
from pillsnap.gates.subject import Subject, spread
from pillsnap.inference.checkpoints import DETECTOR_FILE, load_detector, read_checkpoint
from pillsnap.inference.nms import non_max_suppression
from pillsnap.jsonfile import read_json

NUM_PICTURES = 16
NUM_DETECTED = 8
TIE = 0.99
"""Of the best drug's probability: two drugs that are closer may change places between two devices."""
EXPORT_DIR = "export"
EXPORT_FILE = f"{EXPORT_DIR}/export_report.json"
EXPORTED = ("classification", "detection")
NUMPY_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
FREE_SIDE_PX = 64
"""Of an exported model's picture where its side is free."""
GREY = 0.5


def classification_model_loading(subject: Subject) -> Outcome:
    """The best classifier, loaded anew, answers val pictures as the run's evaluation had recorded."""
    if "classification" not in subject.tasks:
        return not_run("the run trained no classifier: set train.tasks=[classification, detection] and train again")
    pipeline, table = subject.pipeline, subject.predictions
    codes = pipeline.classifier.class_map.codes
    problems: list[str] = []
    rows = spread(len(table), NUM_PICTURES)
    num_same = 0
    answers = []
    for row in rows:
        path, box = table.image_path[row], int(table.box[row])
        probabilities_C = pipeline.classify_crops(_view(subject, path, box)[None])[0]
        if not np.isfinite(probabilities_C).all():
            problems.append(f"{path}: an answer that is no number")
            continue
        recorded, found = table.pred_code[row], codes[int(probabilities_C.argmax())]
        is_same = _is_best(recorded, probabilities_C, codes)
        num_same += is_same
        if not is_same:
            problems.append(f"{path}: {found}, recorded was {recorded}")
        answers.append({"image_path": path, "box": box, "recorded": recorded, "found": found})
    if not rows:
        problems.append("no answer of the val split is recorded")
    file = subject.write("classification_model_loading", {"answers": answers})
    message = "; ".join(problems[:3]) or f"the same answer as recorded for {num_same} val pictures"
    return outcome(
        not problems, message, value=num_same, wanted=f"= {max(len(rows), 1)}", unit="same answers", file=file
    )


def _is_best(code: str, probabilities_C: FloatArray, codes: tuple[str, ...]) -> bool:
    return code in codes and bool(probabilities_C[codes.index(code)] >= TIE * probabilities_C.max())


def _view(subject: Subject, image_path: str, box_number: int) -> RgbImage:
    """Return the view that a val pill was judged in, uint8 (S, S, 3)."""
    spec = subject.pipeline.classifier.spec
    pixels = decode_rgb(Path(subject.cfg.data.root) / image_path)
    box = None if box_number < 0 else _box(subject, image_path, box_number)
    if box is None:
        return frame_view(pixels, spec)
    return box_view(pixels, box, spec, subject.pipeline.settings.crop_padding)


def _box(subject: Subject, image_path: str, number: int) -> FloatArray | None:
    """Return the box of a pill; None where its picture is judged whole.

    Raises:
        DataError: The data set does not hold the picture or the box.
    """
    records = subject.data.records
    row = pc.index(columns.array_of(records, "image_path"), image_path).as_py()
    if row < 0 or number >= len(records.boxes_xyxy(row)):
        raise DataError(
            f"{subject.data.root} has no box {number} of {image_path}, which {subject.exp_dir} was judged on. Put the "
            "data set back as it was, or judge the experiment again."
        )
    is_combo = records.table.column("task")[row].as_py() == COMBO
    is_whole = subject.cfg.data.classification.eval_view == "frame" and not is_combo
    return None if is_whole else records.boxes_xyxy(row)[number]


def detection_model_loading(subject: Subject) -> Outcome:
    """The best detector, loaded anew, finds pills on val pictures where the run's evaluation had found some."""
    if "detection" not in subject.tasks:
        return not_run("the run trained no detector: set train.tasks=[classification, detection] and train again")
    path = subject.exp_dir / DETECTOR_FILE
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    detector = load_detector(read_checkpoint(path, "detection"), path, device)
    options = subject.cfg.inference
    pictures = subject.val_pictures(COMBO, NUM_DETECTED) or subject.val_pictures(SINGLE, NUM_DETECTED)
    num_found, problems = 0, [] if pictures else ["the val split holds no picture"]
    for picture in pictures:
        fitted, _ = letterbox(decode_rgb(picture), detector.size_px)
        raw = detector.predictions(fitted[None])
        if not torch.isfinite(raw).all():
            problems.append(f"{picture.name}: an answer that is no number")
        num_found += len(non_max_suppression(raw, options.conf_threshold, options.iou_threshold)[0])
    recall = float(subject.fact("evaluation", "detection", "recall"))
    if pictures and not num_found and recall > 0:
        problems.append(f"no pill found on {len(pictures)} val pictures; the run had found {recall:.0%} of them")
    content = {"pictures": [picture.name for picture in pictures], "found": num_found, "recall_of_the_run": recall}
    file = subject.write("detection_model_loading", content)
    message = "; ".join(problems[:3]) or f"{num_found} pills found on {len(pictures)} val pictures"
    return outcome(
        not problems, message, value=num_found, wanted=">= 1" if recall > 0 else ">= 0", unit="pills", file=file
    )


def onnx_conversion_success(subject: Subject) -> Outcome:
    """Both models were exported with parity, and ONNX Runtime opens and runs the very files that were compared."""
    path = subject.exp_dir / EXPORT_FILE
    if not path.exists():
        return not_run(f"{EXPORT_FILE} does not exist: nothing was exported")
    models = read_json(path).get("models")
    models = models if isinstance(models, Mapping) else {}
    hashes = set(checkpoint_hashes(subject.exp_dir).values())
    problems = []
    for name in EXPORTED:
        entry = models.get(name)
        problem = _export_problem(subject.exp_dir / EXPORT_DIR, entry, hashes) if entry else "was not exported"
        if problem is not None:
            problems.append(f"{name}: {problem}")
    num_right = len(EXPORTED) - len(problems)
    message = "; ".join(problems) or "both files are as exported, hold parity, and answer a picture in ONNX Runtime"
    return outcome(not problems, message, value=num_right, wanted=f"= {len(EXPORTED)}", unit="models", file=EXPORT_FILE)


def _export_problem(folder: Path, entry: Mapping[str, Any], checkpoints: set[str]) -> str | None:
    path = folder / str(entry.get("file"))
    if not path.is_file():
        return f"{EXPORT_DIR}/{entry.get('file')} does not exist"
    if sha256_of(path) != entry.get("sha256"):
        return f"{path.name} is not the file that the report names: its SHA-256 differs"
    if entry.get("parity_passed") is not True:
        return "its answers were not found equal to those of the PyTorch model"
    if "checkpoint" in entry and entry["checkpoint"] not in checkpoints:
        return "it was exported from another checkpoint than lies there now"
    try:
        answers = run_onnx(path)
    except PillError as error:
        return str(error)
    return None if all(np.isfinite(answer).all() for answer in answers) else "its answer is no number"


def run_onnx(path: Path) -> list[NDArray[Any]]:
    """Open an ONNX file on the CPU and return its outputs for one grey picture.

    Raises:
        PillError: ONNX Runtime cannot open or run it.
    """
    # Imported here: only this check needs the runtime.
    runtime = importlib.import_module("onnxruntime")
    state = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    kinds = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoSuchFile", "NotImplemented")
    errors = tuple(getattr(state, kind) for kind in (*kinds, "RuntimeException"))
    try:
        session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        feed = {each.name: _grey(each.shape, NUMPY_TYPES[each.type]) for each in session.get_inputs()}
        return [np.asarray(answer) for answer in session.run(None, feed)]
    except (*errors, KeyError, ValueError) as error:
        raise PillError(
            f"ONNX Runtime cannot use {path.name} ({type(error).__name__}: {str(error).splitlines()[0][:200]}); wanted "
            "a model that answers a picture. Export it again."
        ) from error


def _grey(shape: list[int | str | None], kind: type[Any]) -> NDArray[Any]:
    """Return an input of mid grey; a free batch is one picture."""
    sizes = [size if isinstance(size, int) else (1 if axis == 0 else FREE_SIDE_PX) for axis, size in enumerate(shape)]
    return np.full(sizes, 255 * GREY if np.issubdtype(kind, np.integer) else GREY, kind)

"""How fast training batches are loaded beside other loaders: `python -m benchmarks.loader --json loader.json`.

All contenders load the same pictures (drawn pills of 976x1280 as PNG, and re-encoded as JPEG, in a folder a drug, in
the page cache), make batches of the same number of random crops of 384 px, and have the same number of worker processes
of one thread, which stay alive between epochs. They take turns in one process, in reversed order every other round
(ABBA); a turn is whole epochs, from asking for the first batch to having the last. Ratios are of pictures a second and
are taken round by round; the median of the rounds is the figure.

- png_store: ours, once a first epoch has filled its store; the hot set (`cache_policy=hotset`) counts, and the memory
  map (`mmap`) is beside it.
- png_cold, jpeg_cold: ours without a store (`cache_policy=none`), every picture decoded from its file.

`host`: a batch is there when it lies in host memory as uint8, ready to be copied to a GPU; `ratio_to_timm_median` is
that of `host`. Ours crops, turns and resizes on the host and leaves brightness, contrast, saturation, hue, blur and
normalising to the device; timm and torchvision jitter brightness, contrast and saturation on the host and leave
normalising to the device. `timm_no_jitter` is timm without its jitter: a ratio to it compares the same work.

`device`: a batch is there when it lies on the device as the model's first layer takes it, with everything done that was
left for the device. Without a GPU that is arithmetic on the CPU, in the main process, which takes its time from the
workers: it then tells of the machine and not of loading.

The others are timm's `create_dataset` and `create_loader` with their defaults for training (crops of 8..100 % of the
area, mirroring, jitter of 0.4, prefetcher), torchvision's ImageFolder with the same transforms in a `DataLoader`, and,
where it is installed, litdata over what its `optimize` makes of the files: raw pixels of the full size for PNG (3.7 MB
a picture; ours keeps 0.34), JPEG as it is. Freed memory is kept in our workers, as in a run (`pillsnap/allocator.py`),
and in the main process, which a run does not do and which only `device` feels; the others' workers have started before
that and are as their libraries leave them.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.loader_contender import PER_PICTURES, Build, Contender, Setting, load_epochs
from benchmarks.loader_ours import ours
from benchmarks.loader_peers import PEERS, missing_peers
from benchmarks.loader_pictures import JPEG_QUALITY, JPEG_SUBSAMPLING, PictureSet, arrange_pictures, mean_kilobytes
from benchmarks.machine import circumstances
from benchmarks.rounds import Plan, RoundKeeper, RoundTimes, Stopwatch, Turn, median
from pillsnap.allocator import keep_freed_memory
from pillsnap.errors import PillError
from pillsnap.jsonfile import save_json
from pillsnap.training.precision import select_device

HOST, DEVICE = "host", "device"
REFERENCE = "timm"
OURS = {"png": {"ours_none": "none", "ours_mmap": "mmap", "ours_hotset": "hotset"}, "jpeg": {"ours_none": "none"}}
FIGURES = {"png_store": ("png", "ours_hotset"), "png_cold": ("png", "ours_none"), "jpeg_cold": ("jpeg", "ours_none")}
TARGETS = {"png_store": 20.0, "png_cold": 1.3, "jpeg_cold": 2.5}
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table, write the JSON file; return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = _parse(words)
    torch.set_num_threads(options.threads)
    try:
        with tempfile.TemporaryDirectory(prefix="pillsnap-benchmark-") as temporary:
            results = _measure(options, Path(temporary))
        if options.json is not None:
            save_json(options.json, {**results, **circumstances("benchmarks.loader", words)})
    except PillError as error:
        print(f"benchmarks.loader: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("benchmarks.loader: interrupted; nothing was written", file=sys.stderr)
        return INTERRUPTED
    print(_table(results))
    return 0


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.loader",
        description="Pictures a second of the training loader beside timm's, torchvision's and litdata's.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--json", type=Path, help="file for every figure, setting and round")
    add("--only", choices=sorted(OURS), help="measure one of the two formats")
    add("--rounds", type=_positive, default=5, help="rounds that count")
    add("--workers", type=_positive, default=2, help="worker processes of every contender")
    add("--threads", type=_positive, default=1, help="threads of PyTorch in the main process")
    add("--image-size", type=_positive, default=384, help="side of the inputs, pixels")
    add("--batch-size", type=_positive, default=32, help="pictures a batch")
    add("--drugs", type=_positive, default=10, help="folders of pictures")
    add("--per-drug", type=_positive, default=20, help="different pictures in each")
    add("--repeats", type=_positive, default=2, help="names each picture lies there under; makes epochs longer")
    add("--size", type=_size, default=(976, 1280), metavar="WxH", help="pixels of a picture")
    add("--min-seconds", type=float, default=2.0, help="shortest turn; whole epochs are added until it is over")
    add("--folder", type=Path, help="keep the drawn pictures there, for the next time")
    options = parser.parse_args(words)
    if options.drugs < 2:
        parser.error("--drugs 1: a data set has two drugs or more")
    if options.drugs * options.per_drug * options.repeats < options.batch_size:
        parser.error(f"--batch-size {options.batch_size} is more than the pictures of an epoch")
    if options.json is not None and not options.json.resolve().parent.is_dir():
        parser.error(f"--json {options.json}: there is no folder {options.json.resolve().parent}")
    return options


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text} is not like 976x1280")
    return int(width), int(height)


def _measure(options: argparse.Namespace, temporary: Path) -> dict[str, Any]:
    setting = Setting(options.image_size, options.batch_size, options.workers, select_device())
    pictures = PictureSet(options.drugs, options.per_drug, options.repeats, options.size)
    roots = arrange_pictures(options.folder or temporary / "pictures", pictures)
    kinds = [kind for kind in OURS if options.only in (None, kind)]
    missing = missing_peers()
    peers = {name: build for name, build in PEERS.items() if name not in missing}
    with contextlib.ExitStack() as stack:
        started = {kind: _started(peers, roots[kind], setting, temporary / kind, stack) for kind in kinds}
        is_memory_kept = keep_freed_memory()
        for kind in kinds:
            mine = {name: ours(policy) for name, policy in OURS[kind].items()}
            started[kind] |= _started(mine, roots[kind], setting, temporary / kind, stack)
        times = {kind: _take_turns(kind, started[kind], options, setting) for kind in kinds}
        results: dict[str, Any] = {
            name: _figures(times[kind], mine, started[kind], missing)
            for name, (kind, mine) in FIGURES.items()
            if kind in kinds
        }
    results["not_measured"] = missing
    results["pictures"] = {
        "size": list(pictures.size_wh),
        "different": pictures.num_drugs * pictures.per_drug,
        "in_an_epoch": pictures.num_drugs * pictures.per_drug * pictures.repeats,
        "kilobytes": {kind: round(mean_kilobytes(roots[kind]), 1) for kind in kinds},
        "jpeg": {"quality": JPEG_QUALITY, "subsampling": JPEG_SUBSAMPLING},
    }
    results["settings"] = {
        **{name: getattr(options, name) for name in ("rounds", "workers", "threads", "image_size", "batch_size")},
        "device": setting.device.type,
        "min_seconds": options.min_seconds,
        "freed_memory_kept": is_memory_kept,
    }
    return results


def _started(
    builds: dict[str, Build], root: Path, setting: Setting, folder: Path, stack: contextlib.ExitStack
) -> dict[str, Contender]:
    """Build contenders and load an epoch with each, which starts its workers and is its warm-up."""
    contenders = {}
    for name, build in builds.items():
        print(f"{root.name}: starting {name}", file=sys.stderr, flush=True)
        # What libraries print belongs to no table.
        with (folder.parent / "stdout.txt").open("a", encoding="utf-8") as log, contextlib.redirect_stdout(log):
            contender = build(root, setting, folder / name)
            stack.callback(contender.close)
            sum(contender.epoch(to_device=True))
        contenders[name] = contender
    return contenders


def _take_turns(
    kind: str, contenders: dict[str, Contender], options: argparse.Namespace, setting: Setting
) -> RoundTimes:
    """Return the seconds for `PER_PICTURES` pictures of each contender, `<name>/host` and `<name>/device`."""
    stopwatch = Stopwatch(setting.device)

    def turn(contender: Contender, to_device: bool) -> Turn:
        return lambda: load_epochs(contender, stopwatch, min_s=options.min_seconds, to_device=to_device)

    def on_round(number: int) -> None:
        print(f"{kind}: round {number} of {options.rounds}", file=sys.stderr, flush=True)

    turns = {
        f"{name}/{where}": turn(contender, where == DEVICE)
        for where in (HOST, DEVICE)
        for name, contender in contenders.items()
    }
    keeper = RoundKeeper(Plan(options.rounds, steps=1, turn_steps=1, warmup_rounds=0), on_round)
    while not keeper.is_done:
        keeper.take(turns)
    return keeper.times


def _figures(times: RoundTimes, mine: str, contenders: dict[str, Contender], missing: dict[str, str]) -> dict[str, Any]:
    ratios = times.ratios(f"{mine}/{HOST}", f"{REFERENCE}/{HOST}")
    return {
        "ratio_to_timm_median": median(ratios),
        "ratios_to_timm": ratios,
        "ours": mine,
        HOST: _of_place(times, mine, HOST, missing),
        DEVICE: _of_place(times, mine, DEVICE, missing),
        "seconds_per_1000_pictures": times.seconds,
        "facts": {name: facts for name, contender in contenders.items() if (facts := contender.facts())},
    }


def _of_place(times: RoundTimes, mine: str, where: str, missing: dict[str, str]) -> dict[str, Any]:
    names = [key.removesuffix(f"/{where}") for key in times.seconds if key.endswith(f"/{where}")]
    images_per_s: dict[str, float | None] = {
        name: round(PER_PICTURES / statistics.median(times.seconds[f"{name}/{where}"]), 1) for name in names
    }
    ratios: dict[str, float | None] = {
        name: median(times.ratios(f"{mine}/{where}", f"{name}/{where}")) for name in names if name != mine
    }
    return {
        "images_per_s": images_per_s | dict.fromkeys(missing),
        "ratio_median_to": ratios | dict.fromkeys(missing),
    }


def _table(results: dict[str, Any]) -> str:
    lines = []
    for name, target in TARGETS.items():
        if name not in results:
            continue
        result = results[name]
        spread = f"{min(result['ratios_to_timm']):.2f}..{max(result['ratios_to_timm']):.2f}"
        lines.append(
            f"{name}: {result['ratio_to_timm_median']:.2f} times timm ({spread}), wanted {target}; pictures a second:"
        )
        lines.append(f"  {'':18}{'in host memory':>16}{'ratio':>8}{'on the device':>16}{'ratio':>8}")
        for contender in result[HOST]["images_per_s"]:
            cells = "".join(_cells(result[where], contender) for where in (HOST, DEVICE))
            lines.append(f"  {contender:18}{cells}")
    lines += [f"{name}: {reason}" for name, reason in results["not_measured"].items()]
    return "\n".join(lines)


def _cells(place: dict[str, Any], contender: str) -> str:
    rate, ratio = place["images_per_s"][contender], place["ratio_median_to"].get(contender)
    return f"{'-' if rate is None else f'{rate:.1f}':>16}{'' if ratio is None else f'{ratio:.2f}':>8}"


if __name__ == "__main__":
    sys.exit(main())

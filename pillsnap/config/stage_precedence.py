"""Which values a stage may change: those that were not set in a later place than the stage's own.

The order of places is that of loading: a file, the files that extend it, the command line. Without this, a stage's
`compile_mode` in config.yaml would beat `optimization.torch_compile=none` on the command line.
"""

from __future__ import annotations

from typing import Any

from pillsnap.config.yaml_text import Setting

KEEP = "train.stage_overrides.keep"
STAGE = "data.progressive_validation.current_stage"
CHANNELS_LAST = ("optimization.channels_last", "train.classification.channels_last")
NUM_WORKERS = "dataloader.num_workers"
AUTOTUNE = "dataloader.autotune_workers"
TORCH_COMPILE = "optimization.torch_compile"
HEADROOM = "train.auto_batch_vram_headroom"
AUTO_BATCH_MAX = {
    "classification": "train.classification.auto_batch_max",
    "detection": "train.detection.auto_batch_max",
}

# The name of an override below train.stage_overrides.stage_N -> the keys it is for.
TARGETS: dict[str, tuple[str, ...]] = {
    "batch_size_override": ("train.batch_size",),
    "compile_mode": (TORCH_COMPILE,),
    "memory_format": CHANNELS_LAST,
    "num_workers_override": (NUM_WORKERS,),
}
# What the general rules for small and for large stages change; they stand in no file and count as the outermost one's.
GENERAL = {TORCH_COMPILE, *CHANNELS_LAST, HEADROOM, *AUTO_BATCH_MAX.values()}


def settle_stage_overrides(values: dict[str, Any], settings: dict[str, Setting]) -> None:
    """Add the keys that were set in a later place than what the current stage would set to `KEEP`.

    Args:
        values: Checked values by dotted key; changed in place. Nothing happens while needed ones are missing.
        settings: Tell in which place each key was set.
    """
    if STAGE not in values or KEEP not in values:
        return
    outermost = min(setting.place.layer for setting in settings.values())
    rivals = dict.fromkeys(GENERAL, outermost)
    if AUTOTUNE in settings:
        rivals[NUM_WORKERS] = settings[AUTOTUNE].place.layer  # whoever sets the number in a later place means it
    for name, keys in TARGETS.items():
        key = f"train.stage_overrides.stage_{values[STAGE]}.{name}"
        if values.get(key) is not None:
            rivals.update(dict.fromkeys(keys, settings[key].place.layer))
    kept = {key for key, layer in rivals.items() if key in settings and settings[key].place.layer > layer}
    if kept & set(CHANNELS_LAST):  # two names of one value
        kept |= set(CHANNELS_LAST)
    values[KEEP] = sorted({*values[KEEP], *kept})

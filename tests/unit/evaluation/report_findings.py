"""What the judges of a run leave in its folder, written by hand in the shapes of their files: a run that is no go."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from pillsnap.jsonfile import save_json

TIME = "2026-01-02T04:05:06+00:00"
EVALUATION: dict[str, Any] = {
    "split": "val",
    "classification": {
        "acc": 0.7625,
        "macro_f1": 0.743,
        "top5": 1.0,
        "loss": 0.441,
        "n": 80,
        "ece": 0.0812,
        "ece_calibrated": 0.0314,
        "nll": 0.812,
        "nll_calibrated": 0.655,
        "intervals": {"acc": [0.6625, 0.85], "macro_f1": [0.641, 0.829], "top5": [0.99996, 1.0]},
    },
    "detection": {
        "mAP@0.5": 0.934,
        "precision": 0.98,
        "recall": 0.96,
        "n_images": 15,
        "n_boxes": 54,
        "intervals": {"mAP@0.5": [0.901, 0.961], "recall": [0.91, 1.0]},
    },
    "end_to_end": {"recall": 0.907, "precision": 0.92, "f1": 0.913, "intervals": {"recall": [0.83, 0.97]}},
}
CALIBRATION: dict[str, Any] = {
    "temperature": 1.37,
    "score": "max_logit",
    "threshold": 6.25,
    "wanted_error": 0.01,
    "checkpoint": "8d9f11cd",
    "fitted_on": {"split": "val", "n": 80, "error": 0.0, "coverage": 0.71},
    "bins": {
        "before": [{"low": 0.9, "high": 1.0, "n": 31, "confidence": 0.97, "accuracy": 0.90}],
        "after": [{"low": 0.8, "high": 0.9, "n": 31, "confidence": 0.88, "accuracy": 0.90}],
    },
    "time": TIME,
}
UNKNOWN: dict[str, Any] = {
    "auroc": 0.957,
    "auroc_interval": [0.931, 0.978],
    "false_accept_rate": 0.042,
    "coverage": 0.71,
    "error_accepted_known": 0.004,
    "error_accepted": 0.0118,
    "n_known": 80,
    "n_unknown": 144,
    "n_drugs_unknown": 4,
}
LATENCY: dict[str, Any] = {
    "single": {"p50_ms": 21.4, "p95_ms": 30.2, "p99_ms": 41.0, "mean_ms": 22.1, "n": 200, "warmup": 20},
    "combo": {"p50_ms": 61.4, "p95_ms": 231.7, "p99_ms": 260.0, "mean_ms": 70.1, "n": 200, "warmup": 20},
    "device": "cpu",
    "time": TIME,
    "command": "pillsnap latency runs/demo",
}
CHECKS: dict[str, Any] = {
    "pipeline_complete": {
        "status": "passed",
        "value": 2,
        "wanted": 2,
        "unit": "tasks",
        "what": "Read run.json and metrics.json, and compared the checkpoints with their manifest.",
        "message": "Every configured task was trained and judged.",
        "file": "reports/run.json",
        "time": TIME,
        "seconds": 0.4,
    },
    "classification_model_loading": {
        "status": "passed",
        "what": "Loaded the best checkpoint and named a val picture.",
        "file": "checkpoints/best.pt",  # not in the folder: no link
        "time": TIME,
    },
    "detection_model_loading": {
        "status": "failed",
        "what": "Loaded the best checkpoint and searched a val picture.",
        "message": "checkpoints/detection_best.pt (12 bytes) is not a readable checkpoint.",
        "time": TIME,
    },
    "onnx_conversion_success": {"status": "not run", "what": "", "message": "There is no export.", "time": TIME},
}
VERDICT: dict[str, Any] = {
    "stage": 1,
    "go": False,
    "reasons": [
        "CHECK_FAILED:detection_model_loading",
        "CHECK_NOT_RUN:onnx_conversion_success",
        "LATENCY_P95_TOO_HIGH",
        "NOT_ENOUGH_SAMPLES",
    ],
    "checks": CHECKS,
    "targets": [
        {"name": "detection.mAP_0.5", "wanted": ">=0.30", "value": 0.934, "met": True, "ratio": 1.0},
        {"name": "classification.accuracy", "wanted": ">=0.80", "value": 0.7625, "met": False, "ratio": 0.953},
        {"name": "detection.inference_time_ms", "wanted": "<=50", "value": 201.5, "met": False, "ratio": 0.248},
        {"name": "system.gpu_memory_gb", "wanted": "<=14", "value": None, "met": False, "ratio": 0.0},
    ],
    "advanced": [{"name": "convergence_stability", "wanted": "<0.1", "value": 0.02, "met": True, "ratio": 1.0}],
    "simple": {
        "go": False,
        "reasons": ["LATENCY_P95_TOO_HIGH", "NOT_ENOUGH_SAMPLES"],
        "results": {"latency_p95_ms": 231.7, "n_eval_samples": 80, "class_coverage": 1.0, "accuracy": 0.7625},
        "baseline": {"exp_dir": "runs/old", "accuracy": 0.75, "time": TIME},
    },
    "comparison": None,
    "score": 0.55,
    "time": TIME,
    "exp_dir": "runs/demo",
}
ADVICE: dict[str, Any] = {
    "stage": 1,
    "recommendation": "SUGGEST_OPTIMIZE",
    "reason": "performance_below_target",
    "message": "Stage 1 성능 미달. 최적화 권장",
    "performance_score": 0.55,
    "suggestions": [
        {
            "text": "배치 크기 축소",
            "text_en": "Make the picture for the detector smaller.",
            "text_ko": "배치 크기 축소",
            "figure": "detection.inference_time_ms",
            "value": 201.5,
            "wanted": "<=50",
            "key": "detection.image_size",
            "new_value": 160,
            "override": "detection.image_size=160",
        },
        {
            "text": "학습률 조정",
            "text_en": "Lower the learning rate.",
            "figure": "classification.accuracy",
            "value": 0.7625,
            "key": "train.classification.lr",
            "new_value": 0.001,
            "override": "train.classification.lr=0.001",
        },
    ],
    "user_options": ["[1] Apply and train again", "[2] Go on as it is (risky)", "[3] Look closer"],
    "user_choice": "no choice",
    "time": TIME,
}
FINAL_TEST: dict[str, Any] = {
    "test_results": {"classification": {"accuracy": 0.921, "macro_f1": 0.889}, "detection": {"mAP_0.5": 0.847}},
    "val_results": {"classification": {"accuracy": 0.931, "macro_f1": 0.951}, "detection": {"mAP_0.5": 0.852}},
    "differences": {
        "classification": {
            "accuracy": {"val": 0.931, "test": 0.921, "val_minus_test": 0.01, "interval": [-0.02, 0.04]},
            "macro_f1": {"val": 0.951, "test": 0.889, "val_minus_test": 0.062, "interval": [0.011, 0.103]},
        },
        "detection": {"mAP_0.5": {"val": 0.852, "test": 0.847, "val_minus_test": 0.005, "interval": None}},
    },
    "overfitting": {
        "classification": {"figure": "macro_f1", "val_minus_test": 0.062, "interval": [0.011, 0.103], "suspected": True}
    },
    "business_goals": {
        "single_macro_f1": {"goal": 0.92, "value": 0.889, "met": False},
        "combo_mAP_0.5": {"goal": 0.85, "value": 0.847, "met": False},
        "overall_target_met": False,
    },
    "recommendation": "NEEDS_IMPROVEMENT",
    "ready_for_production": False,
    "improvements": ["Macro F1 0.889 is below 0.92: train longer."],
    "uses": [
        {"time": TIME, "git_sha": "d590cad", "forced": False, "completed": True},
        {"time": TIME, "git_sha": "d590cad", "forced": True, "completed": True},
    ],
}
PER_CLASS = """code,name,n,precision,recall,f1,mean_confidence,most_taken_for,times
K-000001,타이레놀정,4,0.8,1.0,0.889,0.91,,0
K-000002,<script>alert(1)</script>,4,1.0,0.75,0.857,0.72,K-000001,1
"""
HARD_CASES: list[dict[str, Any]] = [
    {"image_path": "a.png", "reasons": ["wrong", "low_confidence"], "true_code": "K-000002", "pred_code": "K-000001"},
    {"image_path": "b.png", "reasons": ["wrong"], "true_code": "K-000002", "pred_code": "K-000001"},
]


def add_findings(exp_dir: Path, *, final_test: bool = False) -> Path:
    """Write what judging, calibrating, timing and advising leave in an experiment, and return the folder."""
    reports = exp_dir / "reports"
    save_json(exp_dir / "calibration.json", CALIBRATION)
    save_json(reports / "checks.json", {"checks": CHECKS})
    parts = {"unknown": UNKNOWN, "latency": LATENCY, "verdict": VERDICT, "advice": ADVICE}
    for name, content in parts.items():
        save_json(reports / f"{name}.json", content)
    if final_test:
        save_json(reports / "final_test_results.json", FINAL_TEST)
    (reports / "per_class_val.csv").write_text(PER_CLASS, encoding="utf-8")
    (exp_dir / "hard_cases").mkdir(exist_ok=True)
    lines = "".join(json.dumps(case, ensure_ascii=False) + "\n" for case in HARD_CASES)
    (exp_dir / "hard_cases" / "val.jsonl").write_text(lines, encoding="utf-8")
    for name in ("calibration", "risk_coverage"):
        Image.new("RGB", (640, 400), "white").save(reports / f"{name}.png")
    return exp_dir

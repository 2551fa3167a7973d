"""Train one of the tiny models into its place, and say how good it is on worlds that it has not seen."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline.errors import UserError

MINUTES = {"clip": 97.0, "detector": 56.0, "mllm": 54.0}
"""How long the shipped models were trained, on two cores."""


def train_model(what: str, out: Path, minutes: float | None, seed: int) -> None:
    """Train `what` (clip, detector or mllm) under `out`, then print its quality as JSON.

    Raises:
        UserError: the detector is asked for and there is no CLIP under `out`.
    """
    minutes = minutes or MINUTES[what]
    held_out = seed + 1_000_003
    if what == "clip":
        from pipeline.planted.train.clip import train_clip
        from pipeline.planted.train.evaluate import evaluate_clip

        train_clip(out / "clip", minutes=minutes, seed=seed)
        quality = evaluate_clip(out / "clip", held_out, 2000)
    elif what == "detector":
        from pipeline.planted.train.detector import train_detector
        from pipeline.planted.train.evaluate import evaluate_detector

        if not (out / "clip" / "open_clip_config.json").is_file():
            raise UserError(f"The detector reads words with the CLIP, and {out / 'clip'} holds none. Train clip first.")
        train_detector(out / "detector", out / "clip", minutes=minutes, seed=seed)
        quality = evaluate_detector(out / "detector", out / "clip", held_out, 1000)
    else:
        from pipeline.planted.train.mllm import train_mllm
        from pipeline.planted.train.mllm_evaluation import evaluate_mllm

        train_mllm(out / "mllm", minutes=minutes, seed=seed)
        quality = evaluate_mllm(out / "mllm", held_out, 500)
    print(json.dumps(quality, indent=1))

"""Measure the tiny CLIP and the tiny detector on held-out scenes of the trained vocabulary.

python -m pipeline.planted.train.evaluate clip data/models/clip
python -m pipeline.planted.train.evaluate detector data/models/detector --clip data/models/clip
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import clip_model, data
from . import detector as detector_training
from .data import Shard

CLIP_TEMPLATES = ("a photo of a {}", "a picture with a {} in it", "there is a {}")


def auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """P(a random positive scores higher than a random negative), ties half: Mann-Whitney's U, scaled."""
    from scipy.stats import mannwhitneyu

    yes, no = scores[positive], scores[~positive]
    if not len(yes) or not len(no):
        return math.nan
    return float(mannwhitneyu(yes, no).statistic / (len(yes) * len(no)))


@torch.no_grad()
def evaluate_clip(model_dir: Path, seed: int = 0, n: int = 1500) -> dict[str, Any]:
    """Measure on held-out scenes of the trained vocabulary, n with one object and n with one to four.

    Keys: `single_top1` zero-shot over all object names; `background_top1` over backgrounds (scenes of 1-4
    objects); `attribute_auc` mean over all concepts, `auc_by_kind`, `auc_by_concept`; `region_top1` RoIAlign
    features on true boxes; `crop_top1` crops of true boxes, resized; `n`.
    """
    from torchvision.ops import roi_align

    model, tokenize = clip_model.load(model_dir)
    words = clip_model.prompt_features(model, tokenize, data.PHRASES, CLIP_TEMPLATES)
    objects, grounds = data.concept_indices("object"), data.concept_indices("background")

    def encode(shard: Shard) -> Tensor:
        parts = [
            clip_model.visual_features(model.visual, clip_model.normalise(shard.images[i : i + 250]))[0]
            for i in range(0, n, 250)
        ]
        return torch.cat(parts)

    def top1(features: Tensor, labels: np.ndarray, names: np.ndarray) -> float:
        return float((names[(features @ words[names].T).argmax(1).numpy()] == labels).mean())

    single = data.held_out_shard(seed, n, clip_model.IMAGE_SIZE, single=True)
    shown = single.truths[:, objects].sum(1) == 1
    single_top1 = top1(encode(single)[shown], objects[single.truths[shown][:, objects].argmax(1)], objects)

    many = data.held_out_shard(seed, n, clip_model.IMAGE_SIZE)
    features = encode(many)
    scores = (features @ words.T).numpy()
    aucs = {p: auc(scores[:, i], many.truths[:, i]) for i, p in enumerate(data.PHRASES)}
    by_kind = {
        kind: float(np.nanmean([aucs[c.phrase] for c in data.CONCEPTS if c.kind == kind]))
        for kind in dict.fromkeys(c.kind for c in data.CONCEPTS)
    }
    row, slot = np.nonzero(np.isin(many.labels, objects))
    boxes = torch.from_numpy(many.boxes[row, slot])
    right_region, right_crop = [], []
    for start in range(0, n, 250):
        here = (row >= start) & (row < start + 250)
        images = clip_model.normalise(many.images[start : start + 250])
        regions = torch.cat([torch.from_numpy(row[here] - start).float()[:, None], boxes[here]], 1)
        labels = many.labels[row[here], slot[here]]
        pooled = clip_model.visual_features(model.visual, images, regions)[1]
        crops = roi_align(
            images,
            torch.cat([regions[:, :1], regions[:, 1:] * clip_model.IMAGE_SIZE], 1),
            clip_model.IMAGE_SIZE,
        )
        assert pooled is not None
        right_region.append((top1(pooled, labels, objects), len(labels)))
        right_crop.append((top1(clip_model.visual_features(model.visual, crops)[0], labels, objects), len(labels)))
    return {
        "single_top1": single_top1,
        "background_top1": top1(features, grounds[many.truths[:, grounds].argmax(1)], grounds),
        "attribute_auc": float(np.nanmean(list(aucs.values()))),
        "auc_by_kind": by_kind,
        "auc_by_concept": aucs,
        "region_top1": sum(a * k for a, k in right_region) / len(row),
        "crop_top1": sum(a * k for a, k in right_crop) / len(row),
        "n": n,
    }


def match(boxes: np.ndarray, words: np.ndarray, true_boxes: np.ndarray, true_words: np.ndarray) -> np.ndarray:
    """Which detections (by falling score) are right at IoU 0.5, bool (n,); a true box is found only once."""
    from pipeline.geometry import iou

    right = np.zeros(len(boxes), bool)
    if not len(boxes) or not len(true_boxes):
        return right
    overlap = iou(boxes, true_boxes) * (words[:, None] == true_words[None])
    free = np.ones(len(true_boxes), bool)
    for i in range(len(boxes)):
        best = int(np.argmax(overlap[i] * free))
        if overlap[i, best] * free[best] >= 0.5:
            right[i], free[best] = True, False
    return right


def evaluate_detector(detector_dir: Path, clip: Path, seed: int = 0, n: int = 600) -> dict[str, Any]:
    """On n held-out scenes: `map50` (mean over words), `ap50_by_word`, `recall_at_25` (score >= 0.25)."""
    from ultralytics.utils.metrics import ap_per_class

    words = detector_training.vocabulary()
    names = [data.PHRASES[w] for w in words]
    model, tokenize = clip_model.load(clip)
    text = clip_model.prompt_features(model, tokenize, names, detector_training.TEMPLATES)
    detector = detector_training.load(detector_dir / detector_training.FILE, names, text)
    scenes: Shard = data.held_out_shard(seed, n)
    targets = detector_training.choose_targets(scenes.labels, scenes.boxes, words)
    picture, true_word = targets.picture.numpy().astype(int), targets.word[:, 0].numpy().astype(int)
    corners = np.concatenate(
        [targets.xywh[:, :2] - targets.xywh[:, 2:] / 2, targets.xywh[:, :2] + targets.xywh[:, 2:] / 2], 1
    )
    right, scores, found = [], [], []
    for start in range(0, n, 50):
        arrays = [np.ascontiguousarray(image[..., ::-1]) for image in scenes.images[start : start + 50]]  # BGR
        for i, result in enumerate(
            detector.predict(arrays, imgsz=detector_training.IMAGE_SIZE, conf=0.005, iou=0.6, verbose=False)
        ):
            order = np.argsort(-result.boxes.conf.numpy(), kind="stable")
            boxes = result.boxes.xyxyn.numpy()[order].astype(np.float64)
            word = result.boxes.cls.numpy()[order].astype(int)
            here = picture == start + i
            right.append(match(boxes, word, corners[here].astype(np.float64), true_word[here]))
            scores.append(result.boxes.conf.numpy()[order])
            found.append(word)
    hits, score, word = (np.concatenate(x) for x in (right, scores, found))
    _, _, _, _, _, ap, present, *_ = ap_per_class(hits[:, None], score, word, true_word)
    by_word = {names[int(w)]: float(a[0]) for w, a in zip(present, ap, strict=True)}
    return {
        "map50": float(np.mean(list(by_word.values()))),
        "ap50_by_word": by_word,
        "recall_at_25": float((hits & (score >= 0.25)).sum() / len(true_word)),
        "n": n,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure a tiny model on held-out scenes.")
    parser.add_argument("model", choices=["clip", "detector"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clip", type=Path, help="the CLIP that prompts the detector")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--n", type=int, default=1500)
    args = parser.parse_args()
    if args.model == "clip":
        result = evaluate_clip(args.folder, args.seed, args.n)
    else:
        result = evaluate_detector(args.folder, args.clip, args.seed, args.n)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()

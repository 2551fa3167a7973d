"""A made-up audit to lay out: findings of every verdict, drawn pictures. Nothing here was measured."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np

from pipeline.images import RGB
from pipeline.records import SCHEMAS
from pipeline.report.assemble import data_uri, montage
from pipeline.report.beside import Beside, Heat, Quotes, heat_of, shares
from pipeline.report.data import ReportData, Triple

NAN = math.nan
CUES = (
    ("buoy", "Co-occurring Objects", "named"),
    ("sea", "Background", "named"),
    ("watermark text", "Texture and Noise", "named"),
    ("warm tint", "Colorization", "named"),
    ("street lamp", "Co-occurring Objects", "named"),
    ("cluster 7 (fence)", "", "unnamed"),
)


def finding(**columns: Any) -> dict[str, Any]:
    """A row of the findings table: nothing measured unless said."""
    row: dict[str, Any] = {}
    for column in SCHEMAS["findings"]:
        row[column.name] = "" if str(column.type) == "string" else [] if "list" in str(column.type) else NAN
    row |= {"rank": 1, "finding_id": "boat-buoy", "class": "boat", "cue_id": "buoy", "cue": "buoy"}
    row |= {
        "cue_type": "Co-occurring Objects",
        "kind": "named",
        "source": "captions",
        "verdict": "inconclusive",
        "resembles_class": False,
        "unmoved": False,
    }
    row |= {name: 0 for name in row if name.startswith("n_") or name.endswith("_n")}
    unknown = set(columns) - set(row)
    if unknown:
        raise KeyError(sorted(unknown))
    return row | columns


def around(name: str, value: float, half: float) -> dict[str, float]:
    """A value and its bounds, as columns."""
    return {name: value, f"{name}_lower": value - half, f"{name}_upper": value + half}


def picture(rng: np.random.Generator, size: tuple[int, int] = (96, 128)) -> tuple[RGB, tuple[float, ...]]:
    """A scene with one round thing in it, and the thing's box."""
    height, width = size
    ramp = np.linspace(0, 1, height)[:, None, None]
    sky, ground = rng.integers(120, 255, 3), rng.integers(20, 140, 3)
    scene = (sky * (1 - ramp) + ground * ramp) * np.ones((1, width, 1)) + rng.normal(0, 5, (height, width, 1))
    image = np.ascontiguousarray(np.clip(scene, 0, 255).astype(np.uint8))
    x, y, radius = (
        int(rng.integers(24, width - 24)),
        int(rng.integers(30, height - 24)),
        int(rng.integers(8, 18)),
    )
    cv2.rectangle(image, (8, height // 2), (50, height - 12), rng.integers(0, 255, 3).tolist(), -1, cv2.LINE_AA)
    cv2.circle(image, (x, y), radius, rng.integers(0, 255, 3).tolist(), -1, cv2.LINE_AA)
    box = ((x - radius) / width, (y - radius) / height, (x + radius) / width, (y + radius) / height)
    return image, tuple(min(max(edge, 0.0), 1.0) for edge in box)


def report(classes: int = 8, findings: int = 30, seed: int = 0, pictures: bool = True) -> ReportData:
    """A whole report's data."""
    rng = np.random.default_rng(seed)
    names = ["boat", "traffic_light", "owl", "bus", "polar bear", "cactus", "kettle", "bicycle"]
    labels = [names[i] if i < len(names) else f"class {i}" for i in range(classes)]
    images, thumbs, boxes, scenes = {}, {}, {}, {}
    for i in range(min(60, findings * 2) if pictures else 0):
        scene, box = picture(rng)
        key = f"{i:032x}"
        label = labels[i % classes]
        images[key] = {
            "image_id": key,
            "path": f"{label}/{i:04d}.png",
            "label": label,
            "width": 128,
            "height": 96,
        }
        thumbs[key], boxes[key], scenes[key] = data_uri(scene), box, scene
    heats: dict[str, Heat] = {}
    rows, effects, triples = [], [], []
    for i in range(findings):
        label = labels[i % max(1, classes - 1)]  # the last class has no finding
        cue, cue_type, kind = CUES[(i // max(1, classes - 1) + i) % len(CUES)]
        verdict = (
            "confirmed"
            if i in (0, 1, 2, 7, 9)
            else ("inconclusive", "associated only", "core", "associated only")[i % 4]
        )
        if label in ("cactus", "kettle"):
            verdict = "associated only"
        strong = verdict == "confirmed"
        removed = float(rng.uniform(0.18, 0.45)) if strong else float(rng.normal(0, 0.03))
        added = float(rng.uniform(0.1, 0.4)) if strong else float(rng.normal(0, 0.02))
        shown = [key for key in thumbs if images[key]["label"] == label][:8]
        measured = verdict != "core"
        columns = {
            **(around("removal_effect", removed, 0.09 if strong else 0.07) if measured else {}),
            **(around("insertion_effect", added, 0.06) if measured and i % 5 else {}),
            **around("harm", max(removed + added, 0.0) / 3, 0.04),
            **around("pa_gap", removed * 1.2, 0.12),
            **around("hr_gap", added * 0.8, 0.05),
            **around("log_odds_ratio", 2.1, 0.6),
        }
        identity = f"{label}-{cue}-{i}"
        if shown and cue_type != "Background":
            heats[identity] = heat_of(shares([np.array([boxes[key]]) for key in shown]), len(shown))
        rows.append(
            finding(
                finding_id=identity,
                rank=i // classes + 1,
                **{"class": label},
                cue_id=f"cue{i % 11}",
                cue=cue,
                cue_type=cue_type,
                kind=kind,
                verdict=verdict,
                why={
                    "confirmed": "Both experiments move the model beyond the placebo in every fill.",
                    "associated only": "Goes with the class in the data, but the answers stay.",
                    "core": "62 of 100 parts of its boxes lie in the class's own boxes.",
                    "inconclusive": "Too few images: an effect under 14 of 100 could not have been seen.",
                }[verdict],
                removal_n=38,
                insertion_n=40,
                removal_p=0.0004 if strong else 0.4,
                insertion_p=0.002 if strong else 0.6,
                fill_spread=0.06,
                smallest_effect=0.14,
                p=0.0004 if strong else 0.4,
                q=0.003 if strong else 0.61,
                cramers_v=0.44,
                prevalence_class=0.7,
                prevalence_other=0.08,
                n_class_with=31,
                n_class_without=14,
                n_other_with=25,
                n_other_without=290,
                object_overlap=0.11,
                evidence_ids=shown,
                evidence_boxes=[[boxes[key]] if cue_type != "Background" else [] for key in shown],
                **columns,
            )
        )
        if measured:
            for fill in ("mean", "blur", "inpaint"):
                for direction, value in (("removal", removed), ("insertion", added)):
                    estimate = value + float(rng.normal(0, 0.03))
                    effects.append(
                        {
                            "finding_id": identity,
                            "fill": fill,
                            "direction": direction,
                            "estimate": estimate,
                            "n": 38,
                        }
                    )
        for place in ("strongest", "typical", "weakest") if strong and shown else ():
            for direction in ("removal", "insertion"):
                key = shown[int(rng.integers(len(shown)))]
                before, after = rng.uniform(0.6, 0.99), rng.uniform(0.05, 0.5)
                edited, placebo = data_uri(picture(rng)[0]), data_uri(picture(rng)[0])
                triples.append(
                    Triple(
                        identity,
                        direction,
                        "inpaint",
                        place,
                        key,
                        thumbs[key],
                        edited,
                        placebo,
                        before,
                        after,
                        before - 0.03,
                    )
                )
    rows.sort(key=lambda row: (row["verdict"] != "confirmed", -row["harm"]))
    sheet = montage([(key, boxes[key]) for key in list(thumbs)[:12]], scenes.__getitem__)
    unnamed = {row["cue_id"] for row in rows if row["kind"] == "unnamed"}
    said = Quotes((("a boat beside a ", "buoy", " in calm water"), ("the ", "buoys", " of the harbour")), 31, 45)
    return ReportData(
        run=run(labels),
        findings=rows,
        effects=effects,
        untested=[
            {
                "label": "boat",
                "cue_id": "cue3",
                "direction": "removal",
                "reason": "fewer than 10 images with the cue",
            },
            {
                "label": "owl",
                "cue_id": "cue3",
                "direction": "insertion",
                "reason": "fewer than 10 images with the cue",
            },
            {
                "label": labels[-1],
                "cue_id": "cue1",
                "direction": "removal",
                "reason": "the cue has no boxes to edit",
            },
        ],
        quarantine=[{"path": "boat/broken.jpg", "reason": "damaged image: truncated"}],
        attributes=[
            {
                "label": "boat",
                "phrase": "buoy",
                "cue_type": "Co-occurring Objects",
                "source": "captions",
                "reason": "in 31 of 45 captions of boat and 25 of 315 others",
                "score": 3.1,
            }
        ],
        cues=[
            {
                "cue_id": f"cue{i}",
                "name": CUES[i % 6][0],
                "cue_type": CUES[i % 6][1],
                "kind": CUES[i % 6][2],
                "operator": "",
            }
            for i in range(11)
        ],
        images=images,
        thumbs=thumbs,
        triples=triples,
        montages={} if sheet is None else dict.fromkeys(sorted(unnamed), data_uri(sheet, sheet.shape[1])),
        beside=Beside(heats, {row["finding_id"]: said for row in rows if row["cue"] == "buoy"}),
    )


def variant(**columns: Any) -> dict[str, Any]:
    """A row of the table of variants."""
    row = {"label": "boat", "variant": "is there", "source": "other classes", "counts": True, "cue_id": "cue0"}
    row |= {"n_present": 45, "n_absent": 315, **around("pa", 0.8, 0.1), **around("hr", 0.06, 0.02)}
    row |= {"pa_gap_top_k": 0.31, "hr_gap_top_k": 0.12, "neither": 0.0, "blank_yes": 0.02, "no_image_yes": 0.4}
    return row | columns


def run(labels: list[str]) -> dict[str, Any]:
    """What run.json would say."""
    return {
        "cuescope": "0.1.0",
        "audit": {
            "data": {"kind": "folder", "path": "data/demo/images"},
            "model": {"kind": "open_clip", "name": "local-dir:data/demo/model"},
            "rank": {"q": 0.05},
            "seed": 0,
        },
        "digest": "8c1f00aa12",
        "classes": labels,
        "data": {
            "root": "data/demo/images",
            "images": 360,
            "quarantined": 1,
            "per_class": dict.fromkeys(labels, 45),
        },
        "fingerprints": {"model": "open_clip:5f0c", "detect": "yolo_world:9911"},
        "versions": {"torch": "2.5.0", "open_clip_torch": "3.0.0"},
        "seed": 0,
        "split": True,
        "forwards": {"predict": 360, "caption": 360, "detect": 360, "ablate": 8200},
        "seconds": {"ingest": 1.2, "predict": 4.0, "caption": 22.5, "detect": 9.1, "ablate": 38.0},
        "costs": {"calls": 0, "tokens": 0, "usd": None},
        "skipped": [{"what": "embed", "why": "no region encoder is configured"}],
        "started": "2026-01-05T10:00:00+00:00",
        "finished": "2026-01-05T10:01:40+00:00",
    }

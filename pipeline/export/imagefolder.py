"""Hugging Face imagefolder: copies of the images, and metadata.jsonl with labels, cues and boxes.

Format: https://huggingface.co/docs/datasets/image_dataset. `load_dataset("imagefolder", data_dir=OUT)` reads it, and so
does Cuescope's own source. The files are in a folder of the split's name: metadata at the root may be overlooked.
"""

from __future__ import annotations

import io
import json
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.errors import UserError
from pipeline.export.data import ExportData, Row, Verdict
from pipeline.export.sample import asked
from pipeline.geometry import as_boxes, to_pixel_xywh
from pipeline.images import SUFFIXES, open_image
from pipeline.store import replacing, write_text


def export_imagefolder(
    audit: ExportData,
    out: Path,
    *,
    least_verdict: Verdict = "inconclusive",
    all_images: bool = False,
    with_cue: int = 8,
    without_cue: int = 4,
    sample: int = 40,
) -> list[Path]:
    """Write the folder `train` into `out`; returns its metadata.jsonl.

    A row an image: `file_name` (its content's id), `image_id`, `path`, `label`, `split` (of the audit), `cues` (names
    of the findings' cues that it shows), `classes` (of those findings), and `objects`: `bbox` as [x, y, width, height]
    in pixels, `categories` as numbers, `names` and `finding_ids`.

    Args:
        audit: a finished audit.
        out: a new or empty folder, or one that this export wrote before.
        least_verdict: findings down to this verdict: confirmed, inconclusive, associated only, core.
        all_images: every image of the audit in the place of those that people are asked about.
        with_cue: most images of a finding that show the cue best.
        without_cue: most images of the class of a finding that don't show it.
        sample: most images beyond these that settle a finding soonest.

    Raises:
        UserError: no finding of such a verdict, or `out` is a file or holds something else.
    """
    findings = audit.wanted(least_verdict)
    if not findings:
        raise UserError(
            f"imagefolder: no finding of the verdict '{least_verdict}' or before it. Try --set least_verdict=core"
        )
    folder = out / "train"
    metadata = folder / "metadata.jsonl"
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not metadata.is_file()):
        raise UserError(f"imagefolder: {out} is a file, or holds other files. Give a new folder with --out.")
    chosen: dict[str, Row] = {row["image_id"]: row for row in audit.images} if all_images else {}
    for finding in findings:
        for one in asked(audit, finding, with_cue, without_cue, sample)[0]:
            chosen.setdefault(one.image["image_id"], one.image)
    numbers = {cue_id: n for n, cue_id in enumerate(dict.fromkeys(row["cue_id"] for row in findings))}
    lines = []
    for image_id, row in chosen.items():
        data = audit.read(row["path"])
        name = f"{image_id}{_suffix(row['path'], data)}"
        with replacing(folder / name) as temporary:
            temporary.write_bytes(data)
        mine = [f for f in findings if audit.showing.get(f["cue_id"], {}).get(image_id)]
        lines.append(
            {
                "file_name": name,
                **{key: row[key] for key in ("image_id", "path", "label", "split")},
                "cues": list(dict.fromkeys(f["cue"] for f in mine)),
                "classes": list(dict.fromkeys(f["class"] for f in mine)),
                "objects": _objects(audit, row, mine, numbers),
            }
        )
    write_text(metadata, "".join(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in lines))
    return [metadata]


def _objects(audit: ExportData, image: Row, findings: list[Row], numbers: dict[str, int]) -> dict[str, list[Any]]:
    objects: dict[str, list[Any]] = {name: [] for name in ("bbox", "categories", "names", "finding_ids")}
    for finding in findings:
        boxes = as_boxes(audit.boxes_in(image["image_id"], finding["cue_id"]))
        for box in to_pixel_xywh(boxes, image["width"], image["height"]).round(2).tolist():
            objects["bbox"].append(box)
            objects["categories"].append(numbers[finding["cue_id"]])
            objects["names"].append(finding["cue"])
            objects["finding_ids"].append(finding["finding_id"])
    return objects


def _suffix(path: str, data: bytes) -> str:
    """The file's own suffix, or its format's: the loader goes by suffixes."""
    suffix = PurePosixPath(path).suffix.lower()
    if suffix in SUFFIXES:
        return suffix
    with open_image(io.BytesIO(data)) as picture:
        return f".{(picture.format or 'png').lower()}".replace("jpeg", "jpg")

"""Hugging Face imagefolder: copies of the images, and metadata.jsonl with labels, cues and boxes.

Format: https://huggingface.co/docs/datasets/image_dataset. `load_dataset("imagefolder", data_dir=OUT)` reads it, and so
does Cuescope's own source. The files are in a folder of the split's name: metadata at the root may be overlooked.
"""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import PurePosixPath
from typing import Any

from pipeline.errors import UserError
from pipeline.export.data import ExportData, FindBoxes, Row, Verdict, check_place
from pipeline.export.sample import asked
from pipeline.geometry import as_boxes, to_pixel_xywh
from pipeline.images import SUFFIXES, UnreadableImage, format_of
from pipeline.places import Place
from pipeline.sources.items import parse_json
from pipeline.store import replacing, write_text


def export_imagefolder(
    audit: ExportData,
    out: Place,
    *,
    least_verdict: Verdict = "inconclusive",
    all_images: bool = False,
    with_cue: int = 8,
    without_cue: int = 4,
    sample: int = 40,
) -> list[Place]:
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
        UserError: no finding of such a verdict, a picture that can't be read any more, or `out` is a file or holds
            something else.
    """
    findings = audit.wanted(least_verdict)
    if not findings:
        raise UserError(
            f"imagefolder: no finding of the verdict '{least_verdict}' or before it. Try --set least_verdict=core"
        )
    folder = out / "train"
    metadata = folder / "metadata.jsonl"
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not metadata.is_file())):
        raise UserError(f"imagefolder: {out} is a file, or holds other files. Give a new folder with --out.")
    check_place(metadata)  # the folder that was audited may well be such a folder
    chosen: dict[str, Row] = {row["image_id"]: row for row in audit.images} if all_images else {}
    for _, shown, _ in asked(audit, findings, with_cue, without_cue, sample):
        for one in shown:
            chosen.setdefault(one.image["image_id"], one.image)
    earlier = _file_names(metadata)
    numbers = {cue_id: n for n, cue_id in enumerate(dict.fromkeys(row["cue_id"] for row in findings))}
    find = audit.boxes_of(chosen)
    lines = []
    for image_id, row in chosen.items():
        data = audit.read(row["path"])
        name = f"{image_id}{_suffix(row['path'], data)}"
        with replacing(folder / name) as temporary:
            temporary.write_bytes(data)
        mine = [f for f in findings if audit.shows(image_id, f["cue_id"])]
        lines.append(
            {
                "file_name": name,
                **{key: row[key] for key in ("image_id", "path", "label", "split")},
                "objects": _objects(row, mine, find, numbers),  # early: by `finding_ids` an export is known
                "cues": list(dict.fromkeys(f["cue"] for f in mine)),
                "classes": list(dict.fromkeys(f["class"] for f in mine)),
            }
        )
    write_text(metadata, "".join(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in lines))
    for name in earlier - {line["file_name"] for line in lines}:
        (folder / name).unlink(missing_ok=True)
    return [metadata]


def _file_names(metadata: Place) -> set[str]:
    """The pictures that an earlier export put beside its metadata."""
    names: set[str] = set()
    text = metadata.read_text(encoding="utf-8", errors="replace") if metadata.is_file() else ""
    for line in text.splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            names.add(str(parse_json(line)["file_name"]))
    # pictures beside it alone: whoever wrote the file could name any other
    return {name for name in names if re.fullmatch(r"[\w-]+\.[a-z]+", name) and PurePosixPath(name).suffix in SUFFIXES}


def _objects(image: Row, findings: list[Row], find: FindBoxes, numbers: dict[str, int]) -> dict[str, list[Any]]:
    objects: dict[str, list[Any]] = {name: [] for name in ("finding_ids", "bbox", "categories", "names")}
    for finding in findings:
        boxes = as_boxes(find(image["image_id"], finding["cue_id"]))
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
    try:
        return f".{format_of(data).lower()}".replace("jpeg", "jpg")
    except UnreadableImage as error:
        raise UserError(f"imagefolder: {path} could be read in the audit and can't be now: {error}.") from None

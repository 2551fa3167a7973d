"""Group annotations, an image's class x whether a cue is present: what training against spurious cues asks for.

GroupDRO (Sagawa et al., ICLR 2020, arXiv 1911.08731) and reweighting (Idrissi et al., CLeaR 2022, arXiv 2110.14503)
take an integer group an image, g = 2 y + a, with y the number of its class and a whether the cue is present: the
convention of WILDS. `weight` is that of reweighting: N / (G n_g), so that the groups weigh the same and the mean is 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.errors import UserError, nearest
from pipeline.export.csv_file import write_csv
from pipeline.export.data import ExportData, Row, Verdict, check_place
from pipeline.metrics.intervals import wilson
from pipeline.metrics.subgroups import subgroup_accuracy, worst_group_accuracy
from pipeline.places import Place
from pipeline.store import replacing

IMAGES = ("cue", "image_id", "path", "split", "class", "y", "present", "group", "weight")
GROUPS = ("cue", "group", "class", "present", "images", "weight", "measured", "accuracy", "accuracy_lower",
          "accuracy_upper", "worst")  # fmt: skip


def export_groups(
    audit: ExportData,
    out: Place,
    *,
    cue: str = "",
    least_verdict: Verdict = "confirmed",
    least_images: int = 10,
) -> list[Place]:
    """Write a row an image and cue, and beside it a row a group with the model's accuracy; returns both files.

    Accuracy is over the estimation half, with Wilson's 95 % interval; `worst` marks the group of the lowest.

    Args:
        audit: a finished audit.
        out: the file, or a folder for `groups.csv`. The groups' file has the same name with `-accuracy`.
        cue: the cue's name; default: the cues of all findings down to `least_verdict`, each with its own groups.
        least_verdict: confirmed, inconclusive, associated only, core. What people call spurious is always there.
        least_images: fewest images on which a group's accuracy may be the worst.

    Raises:
        UserError: no such cue or finding, or something that is no earlier export lies at either file's place.
    """
    if cue:
        names = {row["cue"]: row["cue_id"] for row in audit.findings}
        if cue not in names:
            raise UserError(f"groups: there is no finding of a cue '{cue}'. {nearest(cue, names)}")
        cues = {names[cue]: cue}
    else:
        cues = {row["cue_id"]: row["cue"] for row in audit.wanted(least_verdict)}
    if not cues:
        raise UserError(
            f"groups: no finding of the verdict '{least_verdict}' or before it. Name a cue with --set cue=..., or try "
            "--set least_verdict=inconclusive"
        )
    if out.is_dir() or not out.suffix:
        out = out / "groups.csv"
    classes = list(audit.run["classes"])
    images: list[Row] = []
    groups: list[Row] = []
    for cue_id, name in cues.items():
        rows = _images(audit, cue_id, name, classes)
        images += rows
        groups += _groups(audit, rows, name, classes, least_images)
    beside = out.with_name(f"{out.stem}-accuracy{out.suffix}")
    check_place(out)
    check_place(beside)
    for path, columns, content in ((out, IMAGES, images), (beside, GROUPS, groups)):
        with replacing(path) as temporary:
            write_csv(temporary, columns, content)
    return [out, beside]


def _images(audit: ExportData, cue_id: str, name: str, classes: Sequence[str]) -> list[Row]:
    place = {label: number for number, label in enumerate(classes)}
    shown: Mapping[str, bool] = audit.showing.get(cue_id, {})
    rows: list[Row] = [
        {
            "cue": name,
            **{key: image[key] for key in ("image_id", "path", "split")},
            "class": image["label"],
            "y": place[image["label"]],
            "present": int(shown[image["image_id"]]),
            "group": 2 * place[image["label"]] + int(shown[image["image_id"]]),
        }
        for image in audit.images
        if image["image_id"] in shown
    ]
    sizes = Counter(row["group"] for row in rows)
    for row in rows:
        row["weight"] = len(rows) / (len(sizes) * sizes[row["group"]])
    return rows


def _groups(audit: ExportData, rows: list[Row], name: str, classes: Sequence[str], least: int) -> list[Row]:
    split = bool(audit.run.get("split", True))
    measured = [r for r in rows if r["image_id"] in audit.said and (r["split"] == "estimation" or not split)]
    correct = np.array([r["class"] in audit.said[r["image_id"]] for r in measured], dtype=float)
    y, a = (np.array([r[key] for r in measured], dtype=np.int64) for key in ("y", "present"))
    found = subgroup_accuracy(correct, y, a, len(classes), 2)
    worst = worst_group_accuracy(found, max(least, 1))
    right = np.where(found.n > 0, found.accuracy, 0.0) * found.n
    bounds = wilson(right, found.n)
    sizes = Counter(r["group"] for r in rows)
    weights = {r["group"]: r["weight"] for r in rows}
    made: list[Row] = []
    for number, label in enumerate(classes):
        for present in (0, 1):
            at = number, present
            made.append(
                {
                    "cue": name,
                    "group": 2 * number + present,
                    "class": label,
                    "present": present,
                    "images": sizes[2 * number + present],
                    "weight": weights.get(2 * number + present),
                    "measured": int(found.n[at]),
                    "accuracy": float(found.accuracy[at]),
                    "accuracy_lower": float(bounds.lower[at]),
                    "accuracy_upper": float(bounds.upper[at]),
                    "worst": int(at == (worst.label, worst.subgroup)),
                }
            )
    return made

"""What changed in the data between two audits of it, that would explain a change of their findings.

The one entry is `drift_between(before, after, seed, level)`, on two audits' folders; `drift` is the same on their
tables. Both return a table of the schema `checks`, what was found first.

Two audits of a growing data set share most of their images, so comparing "before" with "after" would hide what came
in. Compared are the images that were added with those that stayed, and the images that were removed with those that
stayed; each within one audit, so that the encoder is the same. Where none stayed, all of "after" with all of "before".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.evidence import checks
from pipeline.evidence.checks import Row, row
from pipeline.metrics.separation import separation
from pipeline.records import matrix, table
from pipeline.store import AuditFolder

LEAST = 5
"""Fewer images of a class than this on a side are not compared."""


def drift_between(before: AuditFolder, after: AuditFolder, seed: int = 0, level: float = 0.05) -> pa.Table:
    """`drift` of two audits' folders.

    Raises:
        UserError: an audit holds no table of images: it was stopped at its start.
    """
    images = [folder.read("images") for folder in (before, after)]
    ids = [set(table["image_id"].to_pylist()) for table in images]
    stayed = ids[0] & ids[1]
    # embeddings are the one big table: read only where they will be asked
    asked = (bool(ids[0] - stayed) if stayed else bool(ids[0]), bool(ids[1] - stayed))
    tables: list[dict[str, pa.Table]] = [
        {"images": mine} | ({"embeddings": folder.read("embeddings")} if ask and folder.has("embeddings") else {})
        for folder, mine, ask in zip((before, after), images, asked, strict=True)
    ]
    encoders = [(folder.run().get("fingerprints") or {}).get("encoder") for folder in (before, after)]
    return drift(tables[0], tables[1], seed, level, same_encoder=encoders[0] == encoders[1])


def drift(
    before: Mapping[str, pa.Table],
    after: Mapping[str, pa.Table],
    seed: int = 0,
    level: float = 0.05,
    same_encoder: bool = True,
) -> pa.Table:
    """What changed from one audit's data to the next one's, as rows of `checks`, what was found first.

    The column `check` says `images` (added, removed, relabelled), or which images are compared with those that stayed:
    `added images`, `removed images`. Of these `what` is the mix of classes (G test), looks (the generalised edge-count
    test on embeddings, blocked by class) and each measured property (Mann-Whitney, class by class); q-values are over
    all tests of one `check`.

    Args:
        before, after: `images`, and `embeddings` where there is an encoder.
        level: false-discovery rate.
        same_encoder: whether the embeddings of both are of one encoder; asked only where no image stayed.
    """
    ids = [set(tables["images"]["image_id"].to_pylist()) for tables in (before, after)]
    stayed = ids[0] & ids[1]
    rows = _counts(before["images"], after["images"], stayed)
    if not stayed:
        both = {"images": pa.concat_tables([before["images"], after["images"]])}
        vectors = [t["embeddings"] for t in (before, after) if "embeddings" in t]
        if same_encoder and len(vectors) == 2:
            both["embeddings"] = pa.concat_tables(vectors)
        rows += _compared("added images", both, ids[1], seed, level)
    else:
        rows += _compared("added images", after, ids[1] - stayed, seed, level)
        rows += _compared("removed images", before, ids[0] - stayed, seed, level)
    rows = checks.found_by_q(checks.with_q(rows), ("looks",), level)
    for one in rows:
        if one["lower"] == one["lower"]:  # an area under the ROC curve
            side = one["check"].removesuffix(" images")
            others = "those that stayed" if stayed else "those of before"
            checks.settle_area(one, level, f"The {side} pictures of", others)
    return table("checks", sorted(rows, key=lambda one: not one["found"]))


def _counts(before: pa.Table, after: pa.Table, stayed: set[str]) -> list[Row]:
    old, new = (
        dict(zip(images["image_id"].to_pylist(), images["label"].to_pylist(), strict=True))
        for images in (before, after)
    )
    added, removed = ([one for one in side if one not in stayed] for side in (new, old))
    relabelled = [one for one in old if one in stayed and old[one] != new[one]]
    rows = []
    for what, some, whole in (
        ("added", added, len(new)),
        ("removed", removed, len(old)),
        ("relabelled", relabelled, len(stayed)),
    ):
        share = len(some) / max(whole, 1)
        said = f"{len(some):,} of {whole:,} images were {what} ({100 * share:.1f} of 100)."
        rows.append(
            row(
                "images",
                what,
                said if some else f"No image was {what}.",
                found=bool(some),
                statistic=share,
                n=len(some),
                examples=some[: checks.SHOWN],
            )
        )
    return rows


def _compared(check: str, tables: Mapping[str, pa.Table], chosen: set[str], seed: int, level: float) -> list[Row]:
    """The chosen images of an audit against its others."""
    if not chosen:
        return []
    images = tables["images"]
    second = np.array([one in chosen for one in images["image_id"].to_pylist()])
    classes = sorted(set(images["label"].to_pylist()))
    keyed = images.set_column(  # a near-duplicate of an image that stayed is still an image that came
        images.column_names.index("group"),
        "group",
        pa.array([f"{mine} {group}" for mine, group in zip(second, images["group"].to_pylist(), strict=True)]),
    )
    by_class = checks.one_a_group(keyed, classes)
    counts = np.array([[(~second[at]).sum(), second[at].sum()] for at in map(np.array, by_class.values())])
    subject = f"The {check} and the others"
    rows = [checks.mix_row(check, counts, level, subject)]
    embeddings = tables.get("embeddings")
    if embeddings is not None and len(embeddings) == len(images):
        names = (check, "others")
        rows += checks.looks_rows(check, matrix(embeddings["embedding"]), by_class, second, seed, level, names)
    elif embeddings is None:
        rows.append(row(check, "looks", "Not compared: no embeddings, or those of two encoders.", n=len(images)))
    return rows + _properties(check, images, by_class, second)


def _properties(check: str, images: pa.Table, by_class: dict[str, list[int]], second: np.ndarray) -> list[Row]:
    columns = checks.measured(images)
    ids = np.array(images["image_id"].to_pylist(), dtype=object)
    rows = []
    for label, at in by_class.items():
        places = np.array(at, dtype=np.int64)
        mine = second[places]
        if mine.sum() < LEAST or (~mine).sum() < LEAST:
            continue
        for name, values in columns.items():
            here = values[places]
            if np.ptp(here) == 0:
                continue
            apart = separation(here, (~mine).astype(int), 2)
            order = np.argsort((-1 if apart.area[0] >= 0.5 else 1) * here[mine], kind="stable")
            numbers: dict[str, Any] = {
                "statistic": float(apart.area[0]),
                "lower": float(apart.lower[0]),
                "upper": float(apart.upper[0]),
                "p": float(apart.p[0]),
            }
            examples = ids[places[mine][order[: checks.SHOWN]]].tolist()
            rows.append(row(check, name, "", label=label, n=len(places), examples=examples, **numbers))
    return rows

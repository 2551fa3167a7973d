"""What changed between two audits: findings, each with a test, images, and what else differs and could explain it.

A named cue is the same cue under the same name. An unnamed one, a cluster of regions, has no name that outlives its
audit: it is the same cue if it shows in the same images, by the presence in the images that both audits have; where too
few are common, if the centroids lie together for one and the same encoder. Each is matched once, best first (an
assignment).

The test is of harm (metrics/change.py), on images of the estimation halves and the edits of both audits, over the
directions that both tested; q-values over all (class, cue) pairs that were compared (`rank.correction` of the later
audit). As with the effects of a single audit, it takes the number of edited images as given, which a race decides.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.evidence.drift import drift_between
from pipeline.evidence.presence import Presence
from pipeline.metrics.change import NO_CHANGE, Direction, HarmChange, Mean, harm_change, mean_of
from pipeline.metrics.effects import TRUSTED_DOSES
from pipeline.metrics.tests import false_discovery
from pipeline.records import SchemaError, matrix, table
from pipeline.store import AuditFolder

SAME_IMAGES = 0.6
"""Two clusters whose presence correlates this much (phi) in the common images are one cue, as in a race."""
LEAST_COMMON = 50
"""With fewer common images, centroids are compared instead."""
SAME_CENTROID = 0.9
"""Cosine of two centroids that are one cue."""
SMALLEST_CHANGE = 0.01
"""A change of harm below one of 100 predictions is no news, however sure it is."""
CHANGES = ("new", "worse", "better", "gone", "unchanged", "not compared")
WORSE = ("new", "worse")
MOST_DRIFT = 20
"""Found rows of drift that a comparison keeps; `drift_between` gives all."""
NAN = math.nan

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Comparison:
    """Two audits compared: `changes` (the table of that name), what differs beside the data, and the images."""

    before: str
    after: str
    causes: Rows  # what, before, after
    images: dict[str, Any]  # added, removed, relabelled: how many; by class; some paths
    changes: pa.Table
    drift: Rows = field(
        default_factory=list
    )  # what else changed in the data: found rows of `checks`, at most MOST_DRIFT

    @property
    def counts(self) -> dict[str, int]:
        """How many findings changed in which way."""
        found = Counter(self.changes["change"].to_pylist())
        return {name: found[name] for name in CHANGES}

    @property
    def got_worse(self) -> bool:
        """Whether a finding is new or worse."""
        return any(self.counts[name] for name in WORSE)

    def summary(self) -> dict[str, Any]:
        """All but the table, as plain data: for run.json."""
        return {
            "before": self.before,
            "after": self.after,
            "causes": self.causes,
            "images": self.images,
            "counts": self.counts,
            "drift": self.drift,
        }


class _Side:
    """One of the two audits, with what is looked up."""

    def __init__(self, folder: AuditFolder) -> None:
        self.folder = folder
        self.run = folder.run()
        self.images = folder.read("images")
        self.cues = {row["cue_id"]: row for row in folder.read("cues").to_pylist()}
        self.findings = {(row["class"], row["cue_id"]): row for row in folder.read("findings").to_pylist()}
        self.ids: list[str] = self.images["image_id"].to_pylist()
        self.labels = np.array(self.images["label"].to_pylist(), dtype=object)
        self.order = {cue_id: number for number, cue_id in enumerate(self.cues)}
        self.present = Presence.of(folder.rows("presence"), [*self.cues]).present
        self.estimation = (
            np.array(self.images["split"].to_pylist(), dtype=object) == "estimation"
            if self.run["split"]
            else np.ones(len(self.ids), dtype=bool)
        )

    @cached_property
    def edits(self) -> dict[tuple[str, str, str], Rows]:
        """(class, cue, direction) to rows of `edits`."""
        found: dict[tuple[str, str, str], Rows] = defaultdict(list)
        for row in self.folder.read("edits").select(EDIT_COLUMNS).to_pylist():
            found[row["label"], row["cue_id"], row["direction"]].append(row)
        return found

    @cached_property
    def untested(self) -> dict[tuple[str, str], str]:
        """(class, cue) to why it wasn't tested."""
        reasons: dict[tuple[str, str], list[str]] = defaultdict(list)
        for row in self.folder.read("untested").to_pylist():
            reasons[row["label"], row["cue_id"]].append(f"{row['direction']}: {row['reason']}")
        return {key: "; ".join(lines) for key, lines in reasons.items()}

    def shows(self, cue_id: str) -> NDArray[np.bool_]:
        """(images,), whether each has the cue."""
        return self.present[:, self.order[cue_id]]

    def not_tested(self, label: str, cue_id: str | None) -> str:
        """Why this audit has no effect of a pair, in words."""
        if label not in self.run["classes"]:
            return "the class was not audited"
        if cue_id is None:
            return "no such cue was looked for"
        finding = self.findings.get((label, cue_id))
        if finding is not None and finding["verdict"] == "core":
            return "it was taken for a part of the object"
        return self.untested.get((label, cue_id), "nothing spoke for it, so that no experiment was made")


EDIT_COLUMNS = ["label", "cue_id", "direction", "arm", "fill", "image_id", "group", "hit_after"]


def compare(before: AuditFolder, after: AuditFolder) -> Comparison:
    """What changed from one finished audit to a later one.

    Raises:
        UserError: either isn't finished, or was written by a version whose tables this one can't read.
    """
    for folder in (before, after):
        if not folder.has("findings"):
            raise UserError(f"{folder.path} holds no findings: the audit didn't finish. Run it again to go on.")
    try:
        sides = _Side(before), _Side(after)
        rows = list(_changes(*sides))
        drifted = drift_between(before, after, sides[1].run["audit"]["seed"], sides[1].run["audit"]["rank"]["q"])
    except SchemaError as fault:
        raise UserError(
            f"{before.path} and {after.path} can't be compared: one of them was written by another version of "
            f"Cuescope ({fault}). Audit again with this version; the cache makes that cheap."
        ) from None
    rank = sides[1].run["audit"]["rank"]
    for row, q in zip(rows, false_discovery([row["p"] for row in rows], method=rank["correction"]), strict=True):
        row["q"] = float(q)
        row["change"], why = judge(row, rank["q"])
        row["why"] = "; ".join(part for part in (row["why"], why) if part)
    rows.sort(key=_news_first)
    return Comparison(
        str(before.path),
        str(after.path),
        causes_of(sides[0].run, sides[1].run, sides[0].images, sides[1].images),
        images_between(sides[0].images, sides[1].images),
        table("changes", rows),
        _found_drift(drifted),
    )


def _found_drift(checks: pa.Table) -> Rows:
    """What drifted beside the number of images, which a comparison counts itself."""
    found = [row for row in checks.to_pylist() if row["found"] and row["check"] != "images"]
    return [{key: row[key] for key in ("check", "what", "label", "verdict", "q")} for row in found[:MOST_DRIFT]]


def judge(row: Mapping[str, Any], level: float) -> tuple[str, str]:
    """The change of a finding by its verdicts and its test, and a remark, or empty.

    A finding is new or gone by its verdict, whose error rate is that of each audit; whether harm itself changed is the
    test's to say, and the remark says where it doesn't (the difference between significant and not significant is not
    itself significant: Gelman and Stern 2006, American Statistician 60, 328-331).
    """
    was, now = row["verdict_before"] == "confirmed", row["verdict_after"] == "confirmed"
    compared = not math.isnan(row["p"])
    shown = compared and row["q"] <= level and abs(row["harm_change"]) >= SMALLEST_CHANGE
    parts = [part for part in ("data", "effect") if not math.isnan(row[f"{part}_part"])]
    leading = min(parts, key=lambda part: row[f"{part}_part_p"], default="")
    rises = shown and row["harm_change"] > 0 and row[f"{leading}_part"] > 0
    falls = shown and row["harm_change"] < 0 and row[f"{leading}_part"] < 0
    if now and not was:
        if not compared:
            return "new", ""
        return "new", "" if rises else "that its harm rose is not shown: it may have been there before, unseen"
    if was and not now:
        if row["verdict_after"] == "core":
            return "gone", "it is now taken for a part of the object"
        if not compared:
            return "not compared", "it was confirmed before"
        return "gone", "" if falls else "that its harm fell is not shown: it may be there still"
    if not compared:
        return "not compared", ""
    return ("worse" if rises else "better" if falls else "unchanged"), ""


def _news_first(row: Mapping[str, Any]) -> tuple[Any, ...]:
    size = row["harm_change"] if not math.isnan(row["harm_change"]) else row["harm_after"]
    return CHANGES.index(row["change"]), -abs(np.nan_to_num(size)), row["class"], row["cue"]


def _changes(a: _Side, b: _Side) -> Iterator[dict[str, Any]]:
    match = match_cues(a, b)
    to_after = {old: new for new, (old, _, _) in match.items()}
    groups = {name: number for number, name in enumerate(sorted({*_groups(a), *_groups(b)}))}
    keys = dict.fromkeys(b.findings)
    pairs = [(label, match.get(cue_id, ("", "", NAN))[0] or None, cue_id) for label, cue_id in keys]
    pairs += [
        (label, old, to_after.get(old))
        for label, old in a.findings
        if to_after.get(old) is None or (label, to_after[old]) not in keys
    ]
    shares: dict[Any, Mean] = {}
    for label, old, new in pairs:
        _, by, likeness = match.get(new or "", ("", "", NAN))
        yield _row(a, b, label, old, new, by, likeness, groups, shares)


def _groups(side: _Side) -> list[str]:
    return side.images["group"].to_pylist()


def _row(
    a: _Side,
    b: _Side,
    label: str,
    old: str | None,
    new: str | None,
    by: str,
    likeness: float,
    groups: dict[str, int],
    shares: dict[Any, Mean],
) -> dict[str, Any]:
    findings = [side.findings.get((label, cue or "")) for side, cue in ((a, old), (b, new))]
    known = findings[1] or findings[0]
    assert known is not None
    test, why = _test(a, b, label, old, new, groups, shares) if old and new else (None, "")
    if test is None and not why:
        why = "; ".join(
            f"{when}, {side.not_tested(label, cue)}"
            for when, side, cue in (("before", a, old), ("now", b, new))
            if not any((label, cue, way) in side.edits for way in ("removal", "insertion"))
        )
    row: dict[str, Any] = {
        "class": label,
        "cue": known["cue"],
        "cue_type": known["cue_type"],
        "kind": known["kind"],
        "change": "",
        "why": why,
        "cue_id_before": old or "",
        "cue_id_after": new or "",
        "matched_by": by,
        "likeness": likeness,
        "p": test.p if test else NAN,
        "q": NAN,
        "smallest_change": test.total.smallest if test else NAN,
    }
    for end, finding in zip(("before", "after"), findings, strict=True):
        row[f"verdict_{end}"] = finding["verdict"] if finding else ""
        for name in COPIED:
            row[f"{name}_{end}"] = finding[name] if finding else NAN
    for name, part in (
        ("harm_change", test.total if test else NO_CHANGE),
        ("data_part", test.data if test else NO_CHANGE),
        ("effect_part", test.effect if test else NO_CHANGE),
    ):
        row |= {name: part.estimate, f"{name}_lower": part.lower, f"{name}_upper": part.upper}
        if name != "harm_change":
            row[f"{name}_p"] = part.p
    return row


COPIED = ("harm", "removal_effect", "insertion_effect", "prevalence_class", "prevalence_other")
"""What a row gives of both audits' findings."""


def _test(
    a: _Side, b: _Side, label: str, old: str, new: str, groups: dict[str, int], shares: dict[Any, Mean]
) -> tuple[HarmChange | None, str]:
    """The test of a pair, and what it leaves out; none where no direction was tested in both audits."""
    core = [side.findings.get((label, cue), {}).get("verdict") == "core" for side, cue in ((a, old), (b, new))]
    if any(core):
        return None, ""
    directions: list[Direction] = []
    left_out: list[str] = []
    for way in ("removal", "insertion"):
        rows = [side.edits.get((label, cue, way), []) for side, cue in ((a, old), (b, new))]
        if not any(rows):
            continue
        if not all(rows):
            when = "before" if not rows[0] else "now"
            left_out.append(f"{way} was not tested {when}, and is left out of the change")
            continue
        share = tuple(_share(side, cue, label, way, groups, shares) for side, cue in ((a, old), (b, new)))
        effect = tuple(_effect(mine, way, groups) for mine in rows)
        doses = [side.findings.get((label, cue), {}).get(f"{way}_dose", NAN) for side, cue in ((a, old), (b, new))]
        known = [dose for dose in doses if not math.isnan(dose)]
        if not all(mean.n for mean in (*share, *effect)):
            continue
        dose = float(np.clip(np.mean(known), *TRUSTED_DOSES)) if known else 1.0
        directions.append(Direction((share[0], share[1]), (effect[0], effect[1]), dose))
    if not directions:
        return None, "; ".join(left_out).replace(", and is left out of the change", "")
    return harm_change(directions), "; ".join(left_out)


def _share(side: _Side, cue_id: str, label: str, way: str, groups: dict[str, int], shares: dict[Any, Mean]) -> Mean:
    """How common the images of a direction are: the class's with the cue, or other classes' without it."""
    key = (id(side), cue_id, label, way)
    if key not in shares:
        mine = side.estimation & ((side.labels == label) == (way == "removal"))
        shown = side.shows(cue_id)[mine] == (way == "removal")
        codes = np.array([groups[name] for name in np.array(_groups(side), dtype=object)[mine]], dtype=np.int64)
        shares[key] = mean_of(shown, codes, len(groups))
    return shares[key]


def _effect(rows: Rows, way: str, groups: dict[str, int]) -> Mean:
    """Flips beyond the placebo's: pairs averaged within images, images within groups."""
    sign = 1.0 if way == "removal" else -1.0
    cells: dict[tuple[str, str, str], dict[str, float]] = defaultdict(dict)
    for row in rows:
        cells[row["group"], row["image_id"], row["fill"]][row["arm"]] = float(row["hit_after"])
    images: dict[tuple[str, str], list[float]] = defaultdict(list)
    for (group, image_id, _), arms in cells.items():
        if len(arms) == 2:
            images[group, image_id].append(sign * (arms["placebo"] - arms["edit"]))
    return mean_of(
        [float(np.mean(values)) for values in images.values()], [groups[group] for group, _ in images], len(groups)
    )


def match_cues(a: _Side, b: _Side) -> dict[str, tuple[str, str, float]]:
    """The later audit's cue ids to the earlier one's, by what they were matched, and how alike they are (0 to 1)."""
    found: dict[str, tuple[str, str, float]] = {}
    names = {row["name"].casefold(): cue_id for cue_id, row in a.cues.items() if row["kind"] == "named"}
    for cue_id, row in b.cues.items():
        if row["kind"] == "named":
            old = cue_id if cue_id in a.cues else names.get(row["name"].casefold())
            if old is not None:
                found[cue_id] = (old, "name", 1.0)
    clusters = [[cue for cue, row in side.cues.items() if row["kind"] == "unnamed"] for side in (a, b)]
    if all(clusters):
        for old, new, by, likeness in _match_clusters(a, b, *clusters):
            found[new] = (old, by, likeness)
    return found


def _match_clusters(a: _Side, b: _Side, olds: list[str], news: list[str]) -> Iterator[tuple[str, str, str, float]]:
    from scipy.optimize import linear_sum_assignment  # here, for its import takes longer than most commands

    at = {image_id: number for number, image_id in enumerate(a.ids)}
    common = [(at[image_id], number) for number, image_id in enumerate(b.ids) if image_id in at]
    if len(common) >= LEAST_COMMON:
        rows_a, rows_b = (np.array(rows) for rows in zip(*common, strict=True))
        alike = _correlation(
            a.present[rows_a][:, [a.order[cue] for cue in olds]], b.present[rows_b][:, [b.order[cue] for cue in news]]
        )
        least, by = SAME_IMAGES, "images that show it"
    elif a.run["fingerprints"].get("encoder") == b.run["fingerprints"].get("encoder"):
        alike = (_centroids(a, olds) @ _centroids(b, news).T).astype(np.float64)
        least, by = SAME_CENTROID, "looks of its regions"
    else:
        return
    for i, j in zip(*linear_sum_assignment(-alike), strict=True):
        if alike[i, j] >= least:
            yield olds[i], news[j], by, float(min(alike[i, j], 1.0))


def _correlation(x: NDArray[np.bool_], y: NDArray[np.bool_]) -> NDArray[np.float64]:
    """phi of each column of x with each of y; 0 where one doesn't vary."""
    u, v = (values.astype(float) - values.mean(0) for values in (x, y))
    norms = np.outer(np.linalg.norm(u, axis=0), np.linalg.norm(v, axis=0))
    return np.divide(u.T @ v, norms, out=np.zeros_like(norms), where=norms > 0)


def _centroids(side: _Side, cue_ids: Sequence[str]) -> NDArray[np.float32]:
    clusters = side.folder.read("clusters")
    at = {f"cluster:{number}": row for row, number in enumerate(clusters["cluster"].to_pylist())}
    return matrix(clusters["centroid"])[[at[cue_id] for cue_id in cue_ids]]


def images_between(a: pa.Table, b: pa.Table, listed: int = 20) -> dict[str, Any]:
    """Images that came, went or changed their label, told by content; with some of their paths.

    An image's id is a hash of its bytes (and of its annotations, where the data have any), so that a file which was
    moved is the same image, and one that was replaced is another.
    """
    sides = [
        {row["image_id"]: row for row in side.select(["image_id", "label", "path", "split"]).to_pylist()}
        for side in (a, b)
    ]
    old, new = sides
    kinds = {
        "added": [new[i] for i in new if i not in old],
        "removed": [old[i] for i in old if i not in new],
        "relabelled": [new[i] for i in new if i in old and new[i]["label"] != old[i]["label"]],
    }
    result: dict[str, Any] = {"before": len(old), "after": len(new)}
    for kind, rows in kinds.items():
        result[kind] = len(rows)
        result[f"{kind}_by_class"] = dict(sorted(Counter(row["label"] for row in rows).items()))
        result[f"{kind}_paths"] = sorted(row["path"] for row in rows)[:listed]
    return result


NAMES = {
    "model": "the model under test",
    "captioner": "the captioner",
    "proposer": "the proposer",
    "detector": "the detector",
    "encoder": "the region encoder",
}
NO_MATTER = frozenset({"cache", "shard", "device", "renew", "data.path", "verdicts"})
"""Settings that leave the findings as they are (a device changes their last digits), or say where the data are."""


def causes_of(a: Mapping[str, Any], b: Mapping[str, Any], images_a: pa.Table, images_b: pa.Table) -> Rows:
    """What differs between two audits beside their images: models by fingerprint, settings, code, packages, choices.

    While this is empty a change is the data's.
    """
    found: Rows = []

    def differs(what: str, old: Any, new: Any) -> None:
        if old != new:
            found.append({"what": what, "before": _plain(old), "after": _plain(new)})

    prints = [run.get("fingerprints") or {} for run in (a, b)]
    for section, name in NAMES.items():
        differs(name, prints[0].get(section), prints[1].get(section))
    settings = [_flat(run.get("audit") or {}) for run in (a, b)]
    for key in sorted({*settings[0], *settings[1]}):
        if key not in NO_MATTER:
            differs(f"configuration: {key}", settings[0].get(key), settings[1].get(key))
    differs("the classes", a.get("classes"), b.get("classes"))
    differs("Cuescope's version", a.get("cuescope"), b.get("cuescope"))
    differs("Cuescope's code", a.get("code"), b.get("code"))
    differs("what labelers said before the run", a.get("verdicts"), b.get("verdicts"))
    versions = [run.get("versions") or {} for run in (a, b)]
    for package in sorted({*versions[0], *versions[1]} - {"prefect"}):
        differs(f"package {package}", versions[0].get(package), versions[1].get(package))
    halves = [_selection(images) for images in (images_a, images_b)]
    if a.get("split") and b.get("split") and halves[0] != halves[1]:
        differs(
            "the images that cues were chosen on",
            f"{len(halves[0])} images",
            f"{len(halves[1])} images, {len(halves[1] - halves[0])} of them new",
        )
    return found


def _selection(images: pa.Table) -> set[str]:
    columns = zip(images["image_id"].to_pylist(), images["split"].to_pylist(), strict=True)
    return {image_id for image_id, split in columns if split == "selection"}


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict) and value:
        return {k: v for key, inner in value.items() for k, v in _flat(inner, f"{prefix}{key}.").items()}
    return {prefix.removesuffix("."): value}


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else "none" if value is None else json.dumps(value)

"""rank: effects with intervals, one q-value a finding, a verdict, and an order by expected harm.

- The effect of a direction is the share of predictions that the edit flips beyond what the placebo flips, divided by
  the dose of the cue that the edit gave (evidence/dose.py); the interval is a bootstrap over groups of near-duplicate
  images and over fills, and spans the effect both as edited and at the natural dose (metrics/effects.py).
- The hypothesis of a direction is that the mean effect on the class's score is at most `rank.smallest_effect`.
- After an exhaustive ablation, whose size is fixed, its p is Gaffke's for bounded values (metrics/tests.py), a
  finding's p twice the smaller of its two directions' (Bonferroni), and q-values are Benjamini and Hochberg's (1995)
  or Yekutieli's (2001) over all (class, cue) pairs that were tested.
- After a race, whose size depends on the data, its p is 1 / e for the e-value of a bet on a larger effect
  (metrics/anytime.py), a finding's e combines its two directions', and q-values are those of e-BH.
- What labelers call core is core, and what they don't see in its pictures is inconclusive, whatever the experiments
  say; what they call spurious is not core, and comes first. Cues that they call alike are one.
- Harm is half of P(cue | class) x removal effect + (1 - P(cue | other classes)) x insertion effect: the share of
  predictions that would change if the cue no longer went with the class, an image of the class and one of another
  weighing the same. Confirmed findings come in the order of its lower bound; all others by what was observed, the
  lower bounds of gaps and association: first those with an e-value above 3 (the square root of 10), last those that
  the first edits speak against (records.worst_first), so that their order hardly depends on how many edits were made.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from pipeline.config import Audit
from pipeline.evidence.boxes import BoxFinder
from pipeline.evidence.presence import phi
from pipeline.evidence.race import SAME_CUE, STOPPED
from pipeline.metrics.anytime import confidence_sequence, e_bh, e_value, either
from pipeline.metrics.effects import FLIP_BOUNDS, TRUSTED_DOSES, Effect, at_natural_dose, paired_effect
from pipeline.metrics.intervals import Interval, cluster_bootstrap_mean, group_means
from pipeline.metrics.tests import bounded_mean, false_discovery
from pipeline.records import DISAGREED, of_half, table, worst_first
from pipeline.store import Parts, batches, key_of
from pipeline.verdicts.settled import Opinion, called, known_again, name_of, opinions

VERSION = 5
EVIDENCE_IMAGES = 8
LEAST_APART = 6
"""Images without a stronger cue, on which an effect must be shown for it to count as one of its own."""
WAYS = ("removal", "insertion")
EXPLAINED = 0.5
"""If another cue explains this share of an effect, it is none of its own."""
USEFUL_POWER = 0.25
"""An experiment that could not have seen an effect of this size proves nothing by seeing none."""

NAN = float("nan")
MEASURES = (
    "log_odds_ratio", "log_odds_ratio_lower", "log_odds_ratio_upper", "cramers_v",
    "pa_gap", "pa_gap_lower", "pa_gap_upper", "hr_gap", "hr_gap_lower", "hr_gap_upper",
    "pa_gap_top_k", "hr_gap_top_k", "null_pa_gap_top_k", "null_hr_gap_top_k",
    "ravl_gap", "ravl_influence", "object_overlap",
    "n_class_with", "n_class_without", "n_other_with", "n_other_without",
)  # fmt: skip


@dataclass(frozen=True)
class Direction:
    """One direction's experiment: effects in flips (of the edits, and at the natural dose) and in the class's score,
    and the evidence for the score's."""

    flips: Effect
    natural: Interval
    dose: float
    score: Interval
    p: float
    e: float


def rank(
    images: pa.Table,
    attributes: pa.Table,
    detections: Parts,
    regions: Parts,
    assignments: Parts,
    clusters: pa.Table,
    cues: pa.Table,
    presence: Parts,
    measures: pa.Table,
    edits: pa.Table,
    experiments: pa.Table,
    untested: pa.Table,
    moves: pa.Table,
    verdicts: pa.Table,
    *,
    audit: Audit,
    classes: Sequence[str],
    fingerprints: Mapping[str, str],
) -> dict[str, pa.Table]:
    """The table `findings`: every pair that was proposed, tested or recognised as core, class by class, worst first."""
    known = {row["cue_id"]: row for row in cues.to_pylist()}
    halves = measures.to_pylist()
    numbers = {(row["label"], row["cue_id"]): row for row in halves if row["split"] == "estimation"}
    selected = {(row["label"], row["cue_id"]) for row in halves if row["selected"]}
    phrases = set(zip(attributes["label"].to_pylist(), attributes["phrase"].to_pylist(), strict=True))
    tested = effects(edits, audit)
    made = {(row["label"], row["cue_id"], row["direction"]): row for row in experiments.to_pylist()}
    reasons: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in untested.to_pylist():
        reasons[row["label"], row["cue_id"]].append(f"{row['direction']}: {row['reason']}")
    seen = Seen(images, presence, list(known), audit.no_split)
    said_of, _ = known_again(verdicts, clusters, fingerprints.get("encoder", ""))
    people, names = opinions(said_of), called(said_of)
    rows: list[dict[str, Any]] = []
    for (label, cue_id), measured in numbers.items():
        cue = known[cue_id]
        opinion = people.get((label, name_of(cue)))
        said = opinion.verdict if opinion else ""
        inside = measured["object_overlap"] > audit.rank.core_overlap and measured["log_odds_ratio_lower"] > 0
        core = said == "core" or (inside and said != "spurious")
        proposed = cue["kind"] == "named" and (label, cue["name"]) in phrases
        if not ((label, cue_id) in selected or core or proposed or said):
            continue
        both = tested.get((label, cue_id), {})
        rows.append(
            _finding(
                label,
                cue,
                measured,
                both,
                core,
                reasons[label, cue_id],
                seen.evidence(label, cue_id),
            )
        )
    shown = {image_id for row in rows for image_id in row["evidence_ids"]}
    boxes = BoxFinder(list(known.values()), detections, regions, assignments, shown)
    for row in rows:
        row["evidence_boxes"] = [boxes.cue(image_id, row["cue_id"]).tolist() for image_id in row["evidence_ids"]]
        ways = [made.get((row["class"], row["cue_id"], name)) for name in ("removal", "insertion")]
        row["removal_stopped"], row["insertion_stopped"] = (way["stopped"] if way else "" for way in ways)
        row["unmoved"] = any(ways) and all(way["unmoved"] for way in ways if way)
    if audit.ablate.mode == "racing":
        qs = e_bh([row["e"] for row in rows])
    else:
        qs = false_discovery([row["p"] for row in rows], method=audit.rank.correction)
    for row, q in zip(rows, qs, strict=True):
        row["q"] = float(q)
        judged = people.get((row["class"], name_of(known[row["cue_id"]])))
        row["labelers"] = judged.verdict if judged else ""
        row["called"] = names.get(name_of(known[row["cue_id"]]), "")
        row["resembles_class"] = known[row["cue_id"]]["looks_like"] == audit.words(row["class"])
        row["verdict"], row["why"] = verdict(row, audit, reasons[row["class"], row["cue_id"]])
        if row["resembles_class"] and row["verdict"] not in ("confirmed", "core"):
            row["why"] += f" What it shows looks like the {row['class']} itself."
        if judged and judged.verdict in ("core", "not present"):
            row["verdict"], row["why"] = heard(row, judged)
    own_effects(rows, moves)
    carried = carriers(edits)
    for label in classes:
        mine = [row for row in rows if row["class"] == label and row["verdict"] == "confirmed"]
        standing: list[dict[str, Any]] = []
        for row in sorted(mine, key=lambda row: (row["kind"] == "unnamed", worst_first(row))):
            pairs = carried.get((label, row["cue_id"]), {})
            double = next((s for s in standing if not apart(row, pairs, seen.showing(s["cue_id"]), audit)), None)
            if double is None:
                standing.append(row)
            else:
                row["verdict"] = "inconclusive"
                row["why"] = (
                    f"Its effect can't be told from that of {double['cue']}, which is confirmed: in edits that carry "
                    "nothing of a picture with that, no effect is shown."
                )
    ordered: list[dict[str, Any]] = []
    for label in classes:
        mine = sorted((row for row in rows if row["class"] == label), key=worst_first)
        for place, row in enumerate(mine):
            row["rank"] = place + 1
            if row["labelers"] in ("spurious", "unsure", DISAGREED):
                row["why"] += f" Labelers: {people[label, name_of(known[row['cue_id']])]}."
            row["same_as"] = next((above["cue_id"] for above in mine[:place] if one_cue(above, row, seen)), "")
        ordered += mine
    return {"findings": table("findings", ordered)}


def own_effects(rows: list[dict[str, Any]], moves: pa.Table) -> None:
    """Take back confirmed findings of whole-picture cues whose effect another one's cue explains.

    More colour is more of a yellow tint, more light is less darkness: an edit that moves another cue by d of its
    natural difference owes that cue |d| times what it does to its class, which may be another class: what one loses,
    others win. Those of which least is explained stand; another stands beside them if more than half of its effect,
    in a direction that shows one, is left.
    """
    dose = {(row["label"], row["cue_id"], row["direction"], row["other"]): row["dose"] for row in moves.to_pylist()}
    confirmed = sorted((row for row in rows if row["verdict"] == "confirmed"), key=worst_first)
    share = [[explained(row, other, dose) for other in confirmed] for row in confirmed]
    standing: list[int] = []
    for number in sorted(range(len(confirmed)), key=lambda number: max(share[number])):
        double = next((other for other in standing if share[number][other] >= EXPLAINED), None)
        if double is None:
            standing.append(number)
            continue
        row, other = confirmed[number], confirmed[double]
        whose = "which is confirmed" if other["class"] == row["class"] else f"confirmed for {other['class']}"
        row["verdict"] = "inconclusive"
        row["why"] = (
            f"Its effect can't be told from that of {other['cue']}, {whose}: edits of the one move the other, by enough"
            " to explain it."
        )


def explained(row: dict[str, Any], other: dict[str, Any], dose: Mapping[tuple[str, str, str, str], float]) -> float:
    """The share of a finding's effect that is another's doing: what its edits do to the other's cue, times what that
    does, over the effect; the least of the directions that show an effect. 0 where nothing is known."""
    does = max((other[f"{name}_effect"] for name in WAYS if other[f"{name}_effect_lower"] > 0), default=0.0)
    shown = [name for name in WAYS if row[f"{name}_effect_lower"] > 0 and row[f"{name}_edit_effect"] > 0]
    moved = [abs(dose.get((row["class"], row["cue_id"], name, other["cue_id"]), 0.0)) for name in shown]
    return min((d * does / row[f"{name}_edit_effect"] for d, name in zip(moved, shown, strict=True)), default=0.0)


def one_cue(a: dict[str, Any], b: dict[str, Any], seen: Seen) -> bool:
    """Whether two findings' cues are one: they are in the same images, or people call them by one name."""
    names = [row["called"] or (row["cue"] if row["kind"] == "named" else row["cue_id"]) for row in (a, b)]
    renamed = names[0] == names[1] and bool(a["called"] or b["called"])
    return renamed or seen.same(a["cue_id"], b["cue_id"])


def effects(edits: pa.Table, audit: Audit) -> dict[tuple[str, str], dict[str, Direction]]:
    """(class, cue) to the directions that were tested."""
    rows: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in edits.to_pylist():
        rows[row["label"], row["cue_id"], row["direction"]].append(row)
    result: dict[tuple[str, str], dict[str, Direction]] = defaultdict(dict)
    for (label, cue_id, direction), mine in rows.items():
        seed = [audit.seed, int(key_of(label, cue_id, direction)[:12], 16)]
        racing = audit.ablate.mode == "racing"
        result[label, cue_id][direction] = measure_direction(
            mine, direction, audit.rank.smallest_effect, seed, racing=racing
        )
    return result


Carried = dict[str, list[tuple[str, dict[str, Any]]]]


def carriers(edits: pa.Table) -> dict[tuple[str, str], Carried]:
    """(class, cue) to direction to its rows of `edits`, each with the image whose pixels the edit takes out or puts in.

    Edits that carry no picture's pixels (of a property, of the whole picture's geometry) have "" for it.
    """
    found: dict[tuple[str, str], Carried] = defaultdict(lambda: defaultdict(list))
    for row in edits.to_pylist():
        spec = json.loads(row["spec"])
        source = spec.get("donor", row["image_id"] if spec["op"] == "fill" else "")
        found[row["label"], row["cue_id"]][row["direction"]].append((source, row))
    # a placebo goes with its edit
    for directions in found.values():
        for direction, pairs in directions.items():
            sources = {row["pair_id"]: source for source, row in pairs if row["arm"] == "edit"}
            directions[direction] = [(sources[row["pair_id"]], row) for _, row in pairs]
    return found


def apart(finding: dict[str, Any], directions: Carried, showing: set[str], audit: Audit) -> bool:
    """Whether a finding's effect is shown by those of its edits, too, that carry nothing of the images `showing`.

    A region's cluster may owe its effect to another cue that its regions often have in them. Which edits are looked at
    depends on the pictures alone, not on what the model made of them.
    """
    for direction, pairs in directions.items():
        free = [row for source, row in pairs if source not in showing]
        if len(free) == len(pairs):
            if finding[f"{direction}_effect_lower"] > 0:
                return True
        elif len({row["image_id"] for row in free}) >= LEAST_APART:
            effect = measure_direction(free, direction, audit.rank.smallest_effect, [audit.seed, 7]).natural
            if effect.lower > 0:
                return True
    return False


def measure_direction(
    rows: list[dict[str, Any]], direction: str, smallest: float, seed: list[int], *, racing: bool = False
) -> Direction:
    """The effect of one experiment from its rows of `edits`; p is anytime-valid if it was a race."""
    images = sorted({row["image_id"] for row in rows})
    fills = sorted({row["fill"] for row in rows})
    at = {(image, fill): (i, f) for i, image in enumerate(images) for f, fill in enumerate(fills)}
    shape = (len(images), len(fills))
    after = {arm: {what: np.full(shape, np.nan) for what in ("hit", "score", "dose")} for arm in ("edit", "placebo")}
    before = {what: np.zeros(len(images)) for what in ("hit", "score")}
    groups = np.empty(len(images), dtype=object)
    for row in rows:
        place = at[row["image_id"], row["fill"]]
        groups[place[0]] = row["group"]
        for what in ("hit", "score"):
            after[row["arm"]][what][place] = float(row[f"{what}_after"])
            before[what][place[0]] = float(row[f"{what}_before"])
        after[row["arm"]]["dose"][place] = row["dose"]
    turn: Literal["fall", "rise"] = "fall" if direction == "removal" else "rise"
    names = groups.astype(str)
    flips = paired_effect(
        after["edit"]["hit"], after["placebo"]["hit"], before["hit"], names, np.random.default_rng(seed),
        direction=turn, bounds=FLIP_BOUNDS, n_permutations=99,
    )  # fmt: skip
    sign = 1 if turn == "fall" else -1
    per_image = np.nanmean(sign * (after["placebo"]["score"] - after["edit"]["score"]), axis=1)
    per_group = group_means(per_image, names)
    e = float(e_value(per_group, smallest))
    p = min(1.0, 1 / e) if racing else bounded_mean(per_group, smallest, np.random.default_rng([*seed, 1]))
    net_dose = (after["edit"]["dose"] - after["placebo"]["dose"]).ravel()
    dose = cluster_bootstrap_mean(net_dose, np.repeat(names, len(fills)), np.random.default_rng([*seed, 2]))
    return Direction(flips, at_natural_dose(flips, dose), float(dose.estimate), confidence_sequence(per_group), p, e)


def _finding(
    label: str,
    cue: dict[str, Any],
    measured: dict[str, Any],
    both: dict[str, Direction],
    core: bool,
    reasons: list[str],
    evidence: list[str],
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "finding_id": key_of(label, cue["cue_id"])[:12],
        "rank": 0,
        "class": label,
        "cue_id": cue["cue_id"],
        "cue": cue["name"],
        "cue_type": cue["cue_type"],
        "kind": cue["kind"],
        "source": cue["source"],
        "verdict": "core" if core else "",
        "why": "",
        "q": NAN,
        "same_as": "",
        "labelers": "",
        "called": "",
        "evidence_ids": evidence,
        **{name: measured[name] for name in MEASURES},
    }
    for name in ("removal", "insertion"):
        tested = both.get(name)
        row[f"{name}_edit_effect"] = tested.flips.estimate if tested else NAN
        row[f"{name}_dose"] = tested.dose if tested else NAN
        row[f"{name}_n"] = tested.flips.n if tested else 0
        row[f"{name}_p"] = tested.p if tested else NAN
        for bound, end in zip(("estimate", "lower", "upper"), ("", "_lower", "_upper"), strict=True):
            row[f"{name}_effect{end}"] = float(getattr(tested.natural, bound)) if tested else NAN
            row[f"{name}_score_effect{end}"] = float(getattr(tested.score, bound)) if tested else NAN
    row["fill_spread"] = both["removal"].flips.fill_spread if "removal" in both else NAN
    row["smallest_effect"] = min((tested.flips.smallest for tested in both.values()), default=NAN)
    row["p"] = NAN if core or not both else min(1.0, len(both) * min(tested.p for tested in both.values()))
    row["e"] = NAN if core or not both else either([tested.e for tested in both.values()])
    gaps = [measured[name] for name in ("pa_gap_lower", "hr_gap_lower") if not np.isnan(measured[name])]
    row["observed_lower"] = max(gaps, default=NAN)
    row["prevalence_class"] = _share(measured["n_class_with"], measured["n_class_without"])
    row["prevalence_other"] = _share(measured["n_other_with"], measured["n_other_without"])
    for end in ("", "_lower", "_upper"):
        parts = (
            row["prevalence_class"] * row[f"removal_effect{end}"] / 2,
            (1 - row["prevalence_other"]) * row[f"insertion_effect{end}"] / 2,
        )
        kept = [max(part, 0.0) if end else part for part in parts if not np.isnan(part)]
        row[f"harm{end}"] = float(sum(kept)) if kept else NAN
    return row


def _share(with_cue: int, without: int) -> float:
    return with_cue / (with_cue + without) if with_cue + without else NAN


def verdict(row: dict[str, Any], audit: Audit, reasons: list[str]) -> tuple[str, str]:
    """The verdict on a finding whose q-value is known, and its reason in a sentence."""
    if row["verdict"] == "core":
        share = f"{100 * row['object_overlap']:.0f} %"
        return (
            "core",
            f"{share} of it lies in the box of the {row['class']} itself: a part of the object is no spurious cue.",
        )
    untested = f" Not tested: {'; '.join(reasons)}." if reasons else ""
    if np.isnan(row["p"]):
        return "inconclusive", f"No experiment was made.{untested or ' The data showed no sign worth one.'}"
    directions = [name for name in ("removal", "insertion") if not np.isnan(row[f"{name}_p"])]
    shown = [
        name
        for name in directions
        if row[f"{name}_effect_lower"] > 0 and len(directions) * row[f"{name}_p"] <= audit.rank.q
    ]
    if row["q"] <= audit.rank.q and shown:
        best = max(shown, key=lambda name: row[f"{name}_effect_lower"])
        what = "Taking it out loses" if best == "removal" else "Putting it in wins"
        return "confirmed", (
            f"{what} predictions beyond the placebo, "
            f"by more than {audit.rank.smallest_effect:g} (q = {row['q']:.2g}).{untested}"
        )
    faint = [name for name in directions if row[f"{name}_dose"] < TRUSTED_DOSES[0]]
    power = f"an effect of {100 * row['smallest_effect']:.0f} points or more would have been seen"
    if all(row[f"{name}_stopped"] == STOPPED["no effect"] for name in directions):
        tried = " and ".join(f"{row[f'{name}_n']} for {name}" for name in directions)
        still = f"on the pictures tried ({tried}) the edits hardly move its margin, so that testing stopped early"
        if row["log_odds_ratio_lower"] > 0 and not faint:
            return (
                "associated only",
                f"It goes with the class in the data, but the model doesn't seem to heed it: {still}.{untested}",
            )
        return "inconclusive", f"No effect beyond the placebo was shown: {still}.{_faintly(row, faint)}{untested}"
    if row["log_odds_ratio_lower"] > 0 and row["smallest_effect"] <= USEFUL_POWER and not faint:
        return "associated only", (
            f"It goes with the class in the data, but the model's answers don't depend on it: {power}.{untested}"
        )
    return "inconclusive", f"No effect beyond the placebo was shown; {power}.{_faintly(row, faint)}{untested}"


def heard(row: dict[str, Any], opinion: Opinion) -> tuple[str, str]:
    """The verdict on a finding that people call core or not present, and its reason.

    Experiments say what the model does; people, what is a part of the object, and what is in the pictures.
    """
    if opinion.verdict == "core":
        return "core", f"Labelers call it a part of the {row['class']} itself ({opinion})."
    return "inconclusive", f"Labelers don't see it in the pictures that were thought to show it ({opinion})."


def _faintly(row: dict[str, Any], directions: list[str]) -> str:
    """That the edits of these directions hardly moved the cue itself, as a sentence."""
    doses = " and ".join(f"{100 * max(row[f'{name}_dose'], 0):.0f} % of it by {name}" for name in directions)
    return f" But the edits moved only a part of the cue ({doses}), so this says little." if doses else ""


class Seen:
    """Presence in the estimation half, for evidence images and for cues that are one."""

    def __init__(self, images: pa.Table, presence: Parts, cue_ids: list[str], no_split: bool) -> None:
        self.ids: list[str] = images["image_id"].to_pylist()
        self.at = {cue_id: number for number, cue_id in enumerate(cue_ids)}
        labels = images["label"].combine_chunks().dictionary_encode()
        self.labels: list[str] = labels.dictionary.to_pylist()
        own = labels.indices.to_numpy()
        half = of_half(images, "estimation") | no_split
        alphabetical = np.argsort(np.argsort(np.array(self.ids)))
        n, shape = len(cue_ids), (len(self.labels), EVIDENCE_IMAGES, len(cue_ids))
        self.present = np.empty((len(self.ids), n), dtype=bool)
        # of each class and cue the images that show it best, so far; -1 where there are not so many
        self._best, self._scores = np.full(shape, -1), np.full(shape, -np.inf)
        done = 0
        for part in batches(presence, ["score", "present"]) if n else ():
            rows = np.arange(done, done := done + len(part) // n)
            self.present[rows] = part["present"].combine_chunks().to_numpy(zero_copy_only=False).reshape(-1, n)
            shown = np.where(self.present[rows], part["score"].to_numpy().reshape(-1, n), -np.inf)
            for c in np.unique(own[rows[half[rows]]]).tolist():
                mine = half[rows] & (own[rows] == c)
                number = np.concatenate([self._best[c], np.repeat(rows[mine, None], n, axis=1)])
                score = np.concatenate([self._scores[c], shown[mine]])
                order = np.lexsort((alphabetical[number], -score), axis=0)[:EVIDENCE_IMAGES]
                self._best[c], self._scores[c] = (np.take_along_axis(of, order, axis=0) for of in (number, score))
        self.correlation = phi(self.present)

    def evidence(self, label: str, cue_id: str) -> list[str]:
        """Images of the class that show the cue best, of the estimation half."""
        place = self.labels.index(label), slice(None), self.at[cue_id]
        return [self.ids[number] for number in self._best[place][np.isfinite(self._scores[place])].tolist()]

    def showing(self, cue_id: str) -> set[str]:
        """Images that show a cue."""
        return {self.ids[i] for i in np.flatnonzero(self.present[:, self.at[cue_id]])}

    def same(self, a: str, b: str) -> bool:
        """Whether two cues are in the same images."""
        return bool(self.correlation[self.at[a], self.at[b]] >= SAME_CUE)

"""What a ranking of one setting is worth, held against the rendered truth."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.bench.planted.methods import SHOWN, Candidate, Region
from pipeline.bench.planted.settings import KINDS, NAMES, Cue, Example, Setting, counterfactuals, shows
from pipeline.geometry import as_boxes, inside
from pipeline.images import RGB
from pipeline.models.protocols import Classifier
from pipeline.planted import BACKGROUNDS, COLORS, OBJECTS, Picture, Scene, render

IS_CUE = 0.7
"""A candidate is a planted cue if this share of its regions shows it, or if it bears its name."""
VALID_GAP = 0.10
"""RaVL's threshold on both gaps of a valid setting."""
TRUTH_SCENES = 200


class Truth:
    """The audited pictures of a setting, and the model's true dependence on any cue of the rendered world."""

    def __init__(self, setting: Setting, examples: Sequence[Example], model: Classifier) -> None:
        self.setting = setting
        self.examples = examples
        self._model = model
        self._effects: dict[tuple[str, Cue], tuple[float, float]] = {}

    def picture(self, row: int) -> Picture:
        """A rendered picture with its boxes."""
        return _rendered(self.examples[row].scene)

    def on_cue(self, region: Region, cue: Cue) -> bool:
        """Whether a region shows a cue: half of the cue lies in it, or half of it in the cue; for a cue of the whole
        picture, whether the picture has it."""
        row, box = region
        scene = self.examples[row].scene
        if not shows(scene, cue):
            return False
        if cue.kind not in ("object", "overlay"):
            return True
        picture = self.picture(row)
        if cue.kind == "object":
            own = [b for o, b in zip(scene.objects, picture.boxes, strict=True) if o.name == cue.name]
        else:
            own = [b for o, b in zip(scene.overlays, picture.overlay_boxes, strict=True) if o.kind == cue.name]
        boxes, asked = as_boxes(own), as_boxes([box])
        return bool(len(boxes)) and bool(max(inside(boxes, asked).max(), inside(asked, boxes).max()) >= 0.5)

    def precision(self, candidate: Candidate | None) -> float:
        """Share of the first regions that show a planted cue (RaVL's Precision@10); 0 without a candidate."""
        if candidate is None or not candidate.regions:
            return 0.0
        cues = [cue for _, cue in self.setting.planted]
        return float(np.mean([any(self.on_cue(r, cue) for cue in cues) for r in candidate.regions[:SHOWN]]))

    def is_planted(self, candidate: Candidate) -> tuple[str, Cue] | None:
        """The planted pair that a candidate is: its class (where it names one) and its cue; None if it is none."""
        for label, cue in self.setting.planted:
            if candidate.label in (None, label) and self.is_cue(candidate, cue):
                return label, cue
        return None

    def is_cue(self, candidate: Candidate, cue: Cue) -> bool:
        """By name, or by most of its regions."""
        if candidate.name in names_of(cue):
            return True
        hits = [self.on_cue(region, cue) for region in candidate.regions[:SHOWN]]
        return bool(hits) and float(np.mean(hits)) >= IS_CUE

    def effects(self, label: str, cue: Cue) -> tuple[float, float]:
        """True (removal, insertion) effects: shares of predictions that change between the same scenes with and
        without the cue, on fresh scenes of the class and of the other classes."""
        if (label, cue) not in self._effects:
            self._effects[label, cue] = self._measure(label, cue)
        return self._effects[label, cue]

    def _measure(self, label: str, cue: Cue) -> tuple[float, float]:
        target = self.setting.classes.index(label)
        own = self._hits(label, cue, TRUTH_SCENES, target)
        others = [name for name in self.setting.classes if name != label]
        rest = np.concatenate([self._hits(name, cue, TRUTH_SCENES // len(others), target) for name in others], axis=1)
        return float(own[0].mean() - own[1].mean()), float(rest[0].mean() - rest[1].mean())

    def _hits(self, label: str, cue: Cue, n: int, target: int) -> NDArray[np.bool_]:
        """(2, n): taken for the target class, with and without the cue."""
        arms = _pictures(self.setting.audited, label, cue, n)
        return np.stack([self._model.logits(arm).argmax(axis=1) == target for arm in arms])

    def world_cue(self, name: str) -> Cue | None:
        """The cue of the rendered world that a finding's name speaks of, if any."""
        things = {"object": tuple(OBJECTS), "background": tuple(BACKGROUNDS), "color": tuple(COLORS)}
        for kind in (*KINDS, "color"):
            known = things.get(kind, NAMES.get(kind, ()))
            for own in known:
                if name in names_of(Cue(kind, own)):
                    return Cue(kind, own)
        return None


def names_of(cue: Cue) -> tuple[str, ...]:
    """What the cue is called by captions, by measured properties and in the world."""
    measured = {
        "noisy": "noisy image", "blurry": "blurry image", "dark": "dark image", "bright": "bright image",
    }  # fmt: skip
    extra = {"watermark": ("watermark",), "close-up": ("close-up", "close up", "close-up view")}
    return (cue.text, *((measured[cue.name],) if cue.name in measured else ()), *extra.get(cue.name, ()))


@functools.lru_cache(maxsize=16)
def _pictures(audited: Setting, label: str, cue: Cue, n: int) -> list[list[RGB]]:
    """With and without the cue; kept for the settings that share their pictures and come one after another."""
    return [[render(scene).image for scene in arm] for arm in counterfactuals(audited, label, cue, n)]


@functools.lru_cache(maxsize=1000)
def _rendered(scene: Scene) -> Picture:
    return render(scene)


@dataclass(frozen=True)
class Validity:
    """RaVL's two gaps of a setting (appendix B): on the class, and the largest on another class."""

    own: float
    other: float

    @property
    def valid(self) -> bool:
        """Both above ten points."""
        return min(self.own, self.other) > VALID_GAP


def validity(setting: Setting, examples: Sequence[Example], predicted: NDArray[np.int64]) -> list[Validity]:
    """For each planted pair: acc(class | cue) - acc(class | none), and the largest acc(none) - acc(cue) of others."""
    labels = np.array([setting.classes.index(e.label) for e in examples])
    found = []
    for label, cue in setting.planted:
        has = np.array([cue in e.cues for e in examples])
        right = labels == predicted

        def gap(c: int, has: NDArray[np.bool_] = has, right: NDArray[np.bool_] = right) -> float:
            mine = labels == c
            return float(right[mine & has].mean() - right[mine & ~has].mean())

        own = setting.classes.index(label)
        found.append(Validity(gap(own), max(-gap(c) for c in range(len(setting.classes)) if c != own)))
    return found


def judge_ranking(truth: Truth, ranking: Sequence[Candidate]) -> dict[str, Any]:
    """Precision@10 of the first candidate; whether the first, and the first three, hold the planted pairs."""
    found = [truth.is_planted(candidate) for candidate in ranking]
    planted = set(truth.setting.planted)
    return {
        "precision_at_10": truth.precision(ranking[0] if ranking else None),
        "at_1": bool(found) and found[0] is not None,
        "at_3": planted <= {pair for pair in found[:3] if pair is not None} if len(planted) > 1
        else any(pair is not None for pair in found[:3]),
        "first": ranking[0].name if ranking else "",
    }  # fmt: skip


def judge_findings(
    truth: Truth, findings: Sequence[dict[str, Any]], candidates: Sequence[Candidate], smallest: float
) -> dict[str, Any]:
    """Confirmed findings that are false, and whether the intervals of the planted pairs cover the true effects.

    Of each planted pair the first finding counts, and every confirmed one; others are the same cue seen worse. Of a cue
    of the whole picture only findings by its name: what edits of vividness do is no claim about a tint.

    A confirmed finding is true if it is a planted pair, or if its name is a cue of the world whose true effect on its
    class is above the smallest effect of interest in a direction; else it is false, unnamed ones always.
    """
    confirmed, false, intervals = 0, [], []
    met: set[Cue] = set()
    for row, candidate in zip(findings, candidates, strict=True):
        pair = truth.is_planted(candidate) if truth.setting.design != "association" else None
        if row["verdict"] == "confirmed":
            confirmed += 1
            if pair is None and not _true_anyway(truth, row, candidate, smallest):
                false.append({"class": row["class"], "cue": row["cue"], "q": row["q"], "harm": row["harm"]})
        named = next((cue for label, cue in truth.setting.planted if label == row["class"]
                      and (candidate.name in names_of(cue)
                           or (cue.kind in ("object", "overlay") and truth.is_cue(candidate, cue)))), None)  # fmt: skip
        if named is None or (named in met and row["verdict"] != "confirmed"):
            continue
        met.add(named)
        for direction, effect in zip(("removal", "insertion"), truth.effects(row["class"], named), strict=True):
            if row[f"{direction}_n"]:
                intervals.append(
                    {
                        "kind": named.kind,
                        "cue": row["cue"],
                        "named": row["kind"],
                        "verdict": row["verdict"],
                        "direction": direction,
                        "truth": effect,
                        "estimate": row[f"{direction}_effect"],
                        "lower": row[f"{direction}_effect_lower"],
                        "upper": row[f"{direction}_effect_upper"],
                        "dose": row[f"{direction}_dose"],
                        "edit_effect": row[f"{direction}_edit_effect"],
                    }
                )
    return {"confirmed": confirmed, "false": false, "intervals": intervals}


def _true_anyway(truth: Truth, row: dict[str, Any], candidate: Candidate, smallest: float) -> bool:
    cue = truth.world_cue(row["cue"])
    if cue is None:
        planted = [c for _, c in truth.setting.planted if truth.is_cue(candidate, c)]
        cue = planted[0] if planted else None
    if cue is None or (cue.kind == "object" and cue.name in truth.setting.classes):
        return False
    return max(truth.effects(row["class"], cue)) > smallest

"""The race: after each round, which experiments get more images. A function of the results so far, and of nothing else.

An image costs a racing experiment two forwards, its edit and its placebo, whatever the number of fills: the fills take
turns over the images. Every experiment starts with a few images. Then

- a direction whose edit moves the model's margin too little to flip answers is *futile*; so is one that, at the best
  rate its images leave open, could no longer be confirmed with the images at hand. Futility confirms nothing, so it
  can't raise false findings: its bounds are of moderate strength;
- a finding is *confirmed* once its e-value passes e-BH over all findings in the race and one direction shows it alone
  (about the verdict of stages/rank.py); it goes on only while its harm can't be told from another confirmed one's;
- the rest goes on until its images are used up.

The e-values are anytime-valid (metrics/anytime.py), so that stopping by them is no optional stopping. One reservation:
experiments share pictures, and a stop by e-BH heeds the others' results, which tests/metrics/test_anytime.py simulates.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import special

from pipeline.config import Audit
from pipeline.metrics.anytime import STAKES, e_bh, e_value, either

Reals = NDArray[np.float64]
Key = tuple[str, str]

FIRST = 6
"""Images of the first round, in whole turns of the fills: on fewer, "no effect" would be said of next to nothing."""
STEP = 4
"""Images of each later round."""
LEAST = 20
"""A confirmed finding's effects rest on at least this many images each, where there are as many."""
SURE = 0.9
"""Level of the one-sided bound by which an experiment is futile."""
FLIPS = 0.05
"""A direction whose expected flips, at that bound, are no more than this share is futile."""
APART = 0.84
"""Two confirmed findings are told apart if one's harm is likelier than this to be the larger."""
SAME_CUE = 0.6
"""Two cues whose presence correlates this much (phi) are one cue by two names: their order settles nothing."""
NARROW = 0.2
"""Or if the harm of both is known to within this, as the width of a 95 % interval."""


@dataclass
class Lane:
    """One experiment in the race: what it may spend, and its results, one entry an image."""

    label: str
    cue_id: str
    direction: str
    block: int  # images to one turn of the fills
    limit: int  # images at hand
    weight: float  # of its effect in the finding's harm
    score: list[float] = field(default_factory=list)  # effect on the class's score, in [-1, 1]
    flip: list[float] = field(default_factory=list)  # effect on the prediction: -1, 0 or 1
    shift: list[float] = field(default_factory=list)  # effect on the margin, in logits
    safety: list[float] = field(default_factory=list)  # the shift that would flip the placebo's answer
    stopped: str = ""

    @property
    def key(self) -> Key:
        """(class, cue)."""
        return self.label, self.cue_id

    @property
    def taken(self) -> int:
        """Images so far."""
        return len(self.score)

    @property
    def left(self) -> int:
        """Images not used yet."""
        return self.limit - self.taken

    def turns(self, images: int) -> int:
        """So many more images, in whole turns of the fills, as far as they last."""
        return min(self.left, -(-images // self.block) * self.block)


STOPPED = {
    "confirmed": "confirmed, and its place in the order settled",
    "no effect": "no effect of use in sight",
    "hopeless": "too small an effect to be confirmed with the images at hand",
    "used up": "every image used",
    "budget": "the budget was spent",
    "exhaustive": "every image used with every fill",
}
"""Why an experiment stopped, in the words of the report."""


def next_round(lanes: list[Lane], audit: Audit, alike: Callable[[str, str], bool]) -> dict[int, int]:
    """How many more images each lane (by its number) gets; sets `stopped`. Empty when the race is over.

    Args:
        alike: whether two cues are one by two names: these need not be told apart.
    """
    if not any(lane.taken for lane in lanes):
        return {number: lane.turns(FIRST) for number, lane in enumerate(lanes) if lane.left}
    evidence = [direction_e(lane.score, audit) for lane in lanes]
    findings: dict[Key, list[int]] = defaultdict(list)
    for number, lane in enumerate(lanes):
        findings[lane.key].append(number)
    names = list(findings)
    q = dict(zip(names, e_bh([either([evidence[n] for n in findings[k]]) for k in names]), strict=True))
    rejected = sum(value <= audit.rank.q for value in q.values())
    # what one more finding needs, among as many as are tested
    needed = len(names) / (audit.rank.q * (rejected + 1))
    sure = {
        key: q[key] <= audit.rank.q and any(shown(lanes[n], evidence[n], len(findings[key]), audit) for n in numbers)
        for key, numbers in findings.items()
    }
    wanted: dict[int, int] = {}
    for key, numbers in findings.items():
        mine = [lanes[n] for n in numbers]
        if sure[key]:
            rivals = [
                [lanes[n] for n in findings[other]]
                for other in names
                if other != key and sure[other] and not (other[0] == key[0] and alike(other[1], key[1]))
            ]
            close = any(not told_apart(mine, rival) for rival in rivals)
            for n in numbers:
                lane = lanes[n]
                lane.stopped = "used up" if not lane.left else "confirmed"
                if lane.left and lane.taken < LEAST:
                    wanted[n] = lane.turns(LEAST - lane.taken)
                elif lane.left and close and lane.taken < audit.ablate.images:
                    wanted[n] = lane.turns(STEP)
            continue
        for n in numbers:
            lane = lanes[n]
            if not lane.left:
                lane.stopped = "used up"
            elif futile(lane, audit):
                lane.stopped = "no effect"
            else:
                wanted[n] = lane.turns(STEP)
        if hopeless(mine, [lanes[n].left if n in wanted else 0 for n in numbers], audit, needed):
            for n in numbers:
                if wanted.pop(n, 0):
                    lanes[n].stopped = "hopeless"
    for n in wanted:
        lanes[n].stopped = ""
    return wanted


def direction_e(score: list[float] | Reals, audit: Audit) -> float:
    """The e-value of one direction: that its mean effect on the class's score exceeds `rank.smallest_effect`."""
    return float(e_value(np.asarray(score, float), audit.rank.smallest_effect))


def shown(lane: Lane, e: float, directions: int, audit: Audit) -> bool:
    """Whether a direction shows its finding alone: by its e-value, and by flips whose rough bound is above zero."""
    flips = np.array([*lane.flip, -1.0, 1.0])
    return directions / e <= audit.rank.q and flips.mean() > 1.96 * flips.std(ddof=1) / np.sqrt(len(flips))


def futile(lane: Lane, audit: Audit) -> bool:
    """Whether the edit hardly moves the model, or moves it the other way.

    Other way: the upper bound of the mean effect on the score, one full hit added, is below `rank.smallest_effect`.
    Hardly: no such effect is seen, and the margin's shift is far from flipping answers.

    The shift of the margin varies smoothly where the softmax is saturated and no answer flips, so few images tell.
    The expected flips are those of a normal shift whose mean is at its one-sided upper bound.
    """
    shift, safety = np.array(lane.shift), np.array(lane.safety)
    n = len(shift)
    if n < FIRST or np.mean(lane.score) > audit.rank.smallest_effect:
        return False
    padded = np.array([*lane.score, 1.0])
    if padded.mean() + special.ndtri(SURE) * padded.std(ddof=1) / np.sqrt(n + 1) <= audit.rank.smallest_effect:
        return True
    spread = float(shift.std(ddof=1))
    upper = float(shift.mean() + special.stdtrit(n - 1, SURE) * spread / np.sqrt(n))
    reached = special.ndtr((upper - safety) / max(spread * np.sqrt(1 + 1 / n), 1e-9))
    return float(np.where(safety > 0, reached, 0.0).mean()) <= FLIPS


def hopeless(lanes: list[Lane], left: list[int], audit: Audit, needed: float) -> bool:
    """Whether a finding can't be expected to reach the e-value `needed`, with the images left to each direction."""
    reach = [
        np.log(direction_e(lane.score, audit)) + more * growth(lane, audit)
        for lane, more in zip(lanes, left, strict=True)
        if lane.taken
    ]
    if not reach:
        return False
    return np.logaddexp.reduce([*reach, sum(reach)]) - np.log(len(reach) + (len(reach) > 1)) < np.log(needed)


def growth(lane: Lane, audit: Audit) -> float:
    """An upper bound of how fast the log of a lane's e-value may grow, an image: the best stake's, at level SURE."""
    ratio = (1 + np.array(lane.score)) / (1 + audit.rank.smallest_effect)
    # two pseudo-images, one of them a full hit: after few images without an effect much is still open
    ratio = np.array([*ratio, 1 / (1 + audit.rank.smallest_effect), 2 / (1 + audit.rank.smallest_effect)])
    logs = np.log1p(STAKES[:, None] * (ratio - 1))
    bound = logs.mean(1) + special.ndtri(SURE) * logs.std(1, ddof=1) / np.sqrt(len(ratio))
    return max(float(bound.max()), 0.0)


def told_apart(mine: list[Lane], rival: list[Lane]) -> bool:
    """Whether the order of two findings by harm is clear enough, or not worth more images."""
    (a, va), (b, vb) = harm(mine), harm(rival)
    widest = 2 * 1.96 * max(va, vb) ** 0.5
    return abs(a - b) > special.ndtri(APART) * (va + vb) ** 0.5 or widest <= NARROW


def harm(lanes: list[Lane]) -> tuple[float, float]:
    """A finding's harm and its variance, from flips with two pseudo-images at the ends of their range."""
    total = variance = 0.0
    for lane in lanes:
        if lane.taken:
            padded = np.array([*lane.flip, -1.0, 1.0])
            total += lane.weight * max(float(np.mean(lane.flip)), 0.0)
            variance += lane.weight**2 * float(padded.var(ddof=1)) / len(padded)
    return total, variance

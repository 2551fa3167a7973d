"""Races over simulated models: what they spend, what they find, what they never find, and whether bounds cover."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from pipeline.config import Audit
from pipeline.evidence import race
from pipeline.metrics.anytime import e_bh, either
from pipeline.metrics.effects import FLIP_BOUNDS, Effect, paired_effect
from pipeline.metrics.tests import bounded_mean, false_discovery

IMAGES, POOL, FILLS = 40, 60, 3
AUDIT = Audit.from_dict(
    {"data": {"path": "x"}, "model": {"kind": "python", "factory": "tests.fakes:patch_lover"}, "ablate": {"images": 40}}
)


@dataclass(frozen=True)
class Reliance:
    """How a model's margin answers to an edit: in some images it moves a lot, in the others it trembles."""

    share: float = 0.0  # of images that respond
    move: float = 0.0  # logits, how far those move
    noise: float = 0.5  # logits, the trembling
    fills: float = 0.0  # logits, how far the fills differ

    def draw(self, rng: np.random.Generator, n: int, n_fills: int) -> np.ndarray:
        """(n, n_fills, 4): effect on score, flip, shift of the margin, margin of the placebo."""
        base = rng.normal(5.0, 2.5, (n, 1))
        bias = self.fills * np.linspace(-1, 1, n_fills) if n_fills > 1 else 0.0
        responds = rng.random((n, 1)) < self.share
        moved = np.where(responds, rng.normal(self.move, 2.0, (n, 1)) + bias, 0.0)
        # edit and placebo tremble alike: without a response the effect is none
        margin, after = base + rng.normal(0, self.noise, (2, n, n_fills))
        after = after - moved
        shift = margin - after
        score = 1 / (1 + np.exp(-margin)) - 1 / (1 + np.exp(-after))
        return np.stack([score, (margin > 0) * 1.0 - (after > 0), shift, margin], axis=-1)


FLAT, NOISY, ROUGH = Reliance(), Reliance(noise=2.0), Reliance(noise=4.0)
NULLS = [FLAT, FLAT, NOISY, ROUGH]
CUE, WEAK_CUE = Reliance(0.85, 10.0), Reliance(0.6, 8.0)

Key = tuple[str, str]


@dataclass
class Outcome:
    """Both modes on the same pictures."""

    lanes: list[race.Lane]
    raced: list[Key]  # confirmed, worst first
    exhaustive: list[Key]
    forwards: int
    exhaustive_forwards: int


def world(cues: dict[Key, tuple[Reliance, Reliance]], seed: int, blocks: tuple[int, int] = (FILLS, 1)) -> Outcome:
    """Audit a world: (class, cue) to what removal and insertion do to the model."""
    rng = np.random.default_rng(seed)
    lanes: list[race.Lane] = []
    drawn: list[np.ndarray] = []
    for (label, cue), both in cues.items():
        for reliance, direction, block in zip(both, ("removal", "insertion"), blocks, strict=True):
            lanes.append(race.Lane(label, cue, direction, block, POOL // block * block, 0.4))
            drawn.append(reliance.draw(rng, POOL, block))
    while wanted := race.next_round(lanes, AUDIT, lambda a, b: False):
        for number, more in wanted.items():
            lane = lanes[number]
            for image in range(lane.taken, lane.taken + more):
                score, flip, shift, safety = drawn[number][image, image % lane.block]
                lane.score.append(score)
                lane.flip.append(flip)
                lane.shift.append(shift)
                lane.safety.append(safety)
    keys = list(cues)
    pairs = [(lanes[2 * k], lanes[2 * k + 1]) for k in range(len(keys))]
    evidence = [tuple(race.direction_e(lane.score, AUDIT) for lane in pair) for pair in pairs]
    q = e_bh([either(e) for e in evidence])
    p = np.array([[bounded_mean(d[:IMAGES, :, 0].mean(1), 0.05, rng, 1999) for d in drawn[k : k + 2]]
                  for k in range(0, len(lanes), 2)])  # fmt: skip
    q_fixed = false_discovery(np.minimum(2 * p.min(1), 1))

    def worst_first(confirmed: dict[Key, float]) -> list[Key]:
        return sorted(confirmed, key=lambda key: -confirmed[key])

    def lower(flips: list[np.ndarray]) -> float:
        padded = [np.array([*values, -1.0, 1.0]) for values in flips]
        return sum(0.4 * max(v.mean() - 1.96 * v.std(ddof=1) / len(v) ** 0.5, 0.0) for v in padded)

    return Outcome(
        lanes,
        worst_first(
            {
                key: lower([np.array(lane.flip) for lane in pair])
                for key, pair, e, value in zip(keys, pairs, evidence, q, strict=True)
                if value <= 0.05 and any(race.shown(lane, own, 2, AUDIT) for lane, own in zip(pair, e, strict=True))
            }
        ),
        worst_first(
            {
                key: lower([d[:IMAGES, :, 1].mean(1) for d in drawn[2 * k : 2 * k + 2]])
                for k, key in enumerate(keys)
                if q_fixed[k] <= 0.05 and 2 * p[k].min() <= 0.05
            }
        ),
        sum(2 * lane.taken for lane in lanes),
        sum(2 * IMAGES * lane.block for lane in lanes),
    )


def cues_of(seed: int, true: list[tuple[Reliance, Reliance]], n: int = 40) -> dict[Key, tuple[Reliance, Reliance]]:
    """`n` cues over five classes, the true ones among them in different classes."""
    rng = np.random.default_rng([seed, 1])
    names = [(f"class {i % 5}", f"cue {i}") for i in range(n)]
    found = {name: (NULLS[rng.integers(4)], NULLS[rng.integers(4)]) for name in names}
    return found | dict(zip(names, true, strict=False))


def test_it_finds_what_the_exhaustive_mode_finds_for_a_quarter_of_its_forwards() -> None:
    agree, share = [], []
    for seed in range(20):
        found = world(cues_of(seed, [(CUE, CUE), (WEAK_CUE, CUE), (FLAT, CUE)]), seed)
        agree.append(set(found.raced) == set(found.exhaustive))
        share.append(found.forwards / found.exhaustive_forwards)
    assert np.mean(agree) >= 0.95 and np.mean(share) <= 0.25


def test_null_audits_stay_empty() -> None:
    found = [world(cues_of(seed, [], n=24), 100 + seed).raced for seed in range(40)]
    assert np.mean([bool(confirmed) for confirmed in found]) <= 0.05


def test_effects_on_the_border_of_interest_stay_below_the_rate() -> None:
    """The hardest null: every cue moves the score by just the smallest effect of interest, and images by turns."""
    border = Reliance(0.052, 14.0, noise=0.2)
    assert border.draw(np.random.default_rng(0), 100_000, 1)[..., 0].mean() == pytest.approx(0.05, abs=0.004)
    cues = {(f"class {i % 4}", f"cue {i}"): (border, border) for i in range(16)}
    assert np.mean([bool(world(cues, 300 + seed).raced) for seed in range(40)]) <= 0.05


def effect_of(lane: race.Lane, rng: np.random.Generator) -> Effect:
    edited = np.full((lane.taken, lane.block), np.nan)
    edited[np.arange(lane.taken), np.arange(lane.taken) % lane.block] = -np.array(lane.flip)
    return paired_effect(
        edited, np.zeros_like(edited), np.zeros(lane.taken), np.arange(lane.taken), rng,
        bounds=FLIP_BOUNDS, n_resamples=400, n_permutations=9,
    )  # fmt: skip


@pytest.mark.parametrize(
    "cue", [CUE, WEAK_CUE, Reliance(0.85, 7.0, fills=2.0), NOISY], ids=["strong", "weak", "fills", "null"]
)
def test_intervals_cover_however_the_race_stopped(cue: Reliance) -> None:
    truth = cue.draw(np.random.default_rng(0), 60_000, FILLS)[..., 1].mean()
    single = cue.draw(np.random.default_rng(0), 60_000, 1)[..., 1].mean()
    rng = np.random.default_rng(9)
    covered = []
    for seed in range(25):
        cues = {(f"class {i}", f"cue {i}"): (cue, cue) for i in range(4)}
        for lane in world(cues, 500 + seed).lanes:
            found = effect_of(lane, rng)
            covered.append(found.lower <= (truth if lane.block == FILLS else single) <= found.upper)
    assert np.mean(covered) >= 0.9


def test_a_cue_by_two_names_is_not_raced_against_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race, "LEAST", 8)  # so that what is spent is spent on the order

    def spent(alike: bool) -> int:
        rng = np.random.default_rng(3)
        lanes = [race.Lane("boat", name, "removal", 1, 40, 0.4) for name in ("buoy", "cluster 3")]
        drawn = CUE.draw(rng, 40, 1)[:, 0]
        while wanted := race.next_round(lanes, AUDIT, lambda a, b: alike):
            for number, more in wanted.items():
                lane = lanes[number]
                for score, flip, shift, safety in drawn[lane.taken : lane.taken + more]:
                    lane.score.append(score)
                    lane.flip.append(flip)
                    lane.shift.append(shift)
                    lane.safety.append(safety)
        assert [lane.stopped for lane in lanes] == ["confirmed"] * 2
        return sum(lane.taken for lane in lanes)

    assert spent(alike=True) < 0.7 * spent(alike=False)

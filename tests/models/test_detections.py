"""Which candidates of a detector are reported: against the rule in words, step by step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.geometry import Boxes, iou
from pipeline.models import detections
from pipeline.models.detections import Choice, select

AS_THEY_ARE = ((0.0, 0.0), (1.0, 1.0))


def by_the_rule(boxes: Boxes, scores: np.ndarray, choice: Choice) -> list[tuple[int, int]]:
    """(place, phrase): go down the scores; what a better box of the phrase overlaps is dropped; then the limit."""
    pairs = [(place, phrase) for place, phrase in np.argwhere(scores >= choice.floor).tolist()]
    pairs.sort(key=lambda pair: (-scores[pair], pair[1], pair[0]))
    kept: list[tuple[int, int]] = []
    for place, phrase in pairs:
        better = [other for other, of in kept if of == phrase]
        if not better or iou(boxes[[place]], boxes[better]).max() <= choice.iou:
            kept.append((place, phrase))
    leaders = {phrase: place for place, phrase in reversed(kept)}
    others = [pair for pair in kept if leaders[pair[1]] != pair[0]]
    chosen = {(place, phrase) for phrase, place in leaders.items()} | {*others[: max(choice.most - len(leaders), 0)]}
    return [pair for pair in kept if pair in chosen]


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 3, 1000]), st.booleans())
@settings(max_examples=150, deadline=None)
def test_what_is_reported_is_what_the_rule_says(seed: int, looked_at: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    places, phrases = int(rng.integers(0, 25)), int(rng.integers(1, 6))
    corner = rng.uniform(0, 0.6, (places, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0.1, 0.4, (places, 2))], axis=1).astype(np.float32)
    scores = rng.uniform(0, 1, (places, phrases)).astype(np.float32)
    if ties:
        scores = np.round(scores * 4) / np.float32(4)
    choice = Choice(float(rng.choice([0.1, 0.5])), float(rng.choice([0.3, 0.7])), int(rng.integers(1, 12)), AS_THEY_ARE)
    wanted = by_the_rule(boxes.astype(np.float64), scores, choice)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detections, "LOOKED_AT", looked_at)
        found = select(torch.from_numpy(boxes), torch.from_numpy(scores), choice, lambda rows: rows.numpy())
    np.testing.assert_array_equal(found.phrases, [phrase for _, phrase in wanted])
    np.testing.assert_array_equal(found.boxes, boxes[[place for place, _ in wanted]].reshape(-1, 4))
    np.testing.assert_array_equal(found.scores, [scores[pair] for pair in wanted])

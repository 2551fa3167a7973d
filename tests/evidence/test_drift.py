"""Drift between two audits: what came in, what went, and whether it is like the rest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.evidence.drift import drift
from tests.evidence.test_checks import CLASSES, embeddings, found, images, vectors


def audit(of: pa.Table, looks: np.ndarray | None = None) -> dict[str, pa.Table]:
    return {"images": of, "embeddings": embeddings(of, vectors(of) if looks is None else looks)}


def parts(*tables: pa.Table) -> pa.Table:
    return pa.concat_tables(tables)


def rows(before: dict[str, pa.Table], after: dict[str, pa.Table], **more: Any) -> list[dict[str, Any]]:
    return drift(before, after, **more).to_pylist()


OLD, NEW = images(80, 0), images(40, 1)
LOOKS = np.concatenate([vectors(OLD, 0), vectors(NEW, 1)])


def test_the_same_data_have_not_drifted() -> None:
    same = rows(audit(OLD), audit(OLD))
    assert found(same) == set() and {one["check"] for one in same} == {"images"}


def test_more_of_the_same_is_an_addition_and_nothing_else() -> None:
    got = rows(audit(OLD, LOOKS[:240]), audit(parts(OLD, NEW), LOOKS))
    assert found(got) == {("images", "added", "")}
    assert got[0]["statistic"] == 120 / 360 and got[0]["found"]  # what was found comes first
    assert str(got) == str(rows(audit(OLD, LOOKS[:240]), audit(parts(OLD, NEW), LOOKS)))


def test_new_images_that_look_otherwise_are_found_in_their_class() -> None:
    looks = LOOKS.copy()
    looks[240:280] += 3 * np.eye(12)[8]  # the boats that came
    got = rows(audit(OLD, LOOKS[:240]), audit(parts(OLD, NEW), looks))
    assert {name for name in found(got) if name[1] == "looks"} == {
        ("added images", "looks", ""),
        ("added images", "looks", "boat"),
    }


def test_darker_new_images_are_found_in_their_class() -> None:
    brightness = np.random.default_rng(1).normal(size=120)
    brightness[40:80] -= 3
    got = rows(audit(OLD, LOOKS[:240]), audit(parts(OLD, images(40, 1, brightness=brightness)), LOOKS))
    assert found(got) == {("images", "added", ""), ("added images", "brightness", "owl")}
    assert "added pictures of “owl” are darker than those that stayed" in next(
        one["verdict"] for one in got if one["what"] == "brightness" and one["found"]
    )


def test_another_mix_of_classes_is_that_alone() -> None:
    more = NEW.take([*range(40), *range(40, 46), *range(80, 84)])  # mostly boats
    looks = np.concatenate([LOOKS[:240], LOOKS[240:][[*range(40), *range(40, 46), *range(80, 84)]]])
    got = rows(audit(OLD, LOOKS[:240]), audit(parts(OLD, more), looks))
    assert found(got) == {("images", "added", ""), ("added images", "mix of classes", "")}


def test_a_chosen_removal_is_found_and_a_random_one_is_not() -> None:
    values = np.array(OLD["sharpness"].to_pylist())
    sharp = [i for i in range(240) if i >= 80 or values[i] > -0.3]  # the blurred boats are gone
    got = rows(audit(OLD), audit(OLD.take(sharp), vectors(OLD)[sharp]))
    assert ("removed images", "sharpness", "boat") in found(got)
    kept = sorted(np.random.default_rng(0).choice(240, 200, replace=False).tolist())
    assert found(rows(audit(OLD), audit(OLD.take(kept), vectors(OLD)[kept]))) == {("images", "removed", "")}


def test_other_labels_for_the_same_images_are_counted() -> None:
    labels = [CLASSES[1] if i < 3 else label for i, label in enumerate(OLD["label"].to_pylist())]
    changed = OLD.set_column(OLD.column_names.index("label"), "label", pa.array(labels))
    got = rows(audit(OLD), audit(changed))
    assert found(got) == {("images", "relabelled", "")} and got[0]["n"] == 3


def test_another_set_altogether_is_compared_whole_if_the_encoder_is_the_same() -> None:
    first, second = audit(OLD, LOOKS[:240]), audit(NEW, LOOKS[240:] + np.eye(12)[9] * 3)
    assert ("added images", "looks", "") in found(rows(first, second))
    other = rows(first, second, same_encoder=False)
    assert "two encoders" in next(one["verdict"] for one in other if one["what"] == "looks")
    assert {"removed images"} & {one["check"] for one in other} == set()


def test_another_encoder_is_no_drift() -> None:
    """Each comparison lies within one audit, so embeddings that turned as a whole show nothing."""
    turned = np.linalg.qr(np.random.default_rng(0).normal(size=(12, 12)))[0]
    got = rows(audit(OLD, LOOKS[:240]), audit(parts(OLD, NEW), LOOKS @ turned), same_encoder=False)
    assert found(got) == {("images", "added", "")}

"""The checks of the data: what is planted is found, by name and class, and what isn't comes out clean."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evidence import checks, duplicates
from pipeline.records import PROPERTIES, table
from pipeline.stages.check import check
from pipeline.stages.ingest import half
from tests.test_chain import audit_of

CLASSES = ("boat", "owl", "cup")


def images(n: int = 80, seed: int = 0, **columns: Any) -> pa.Table:
    """`n` images a class whose properties know nothing of it; `columns` take the place of what is drawn."""
    rng = np.random.default_rng(seed)
    total = n * len(CLASSES)
    groups = [rng.bytes(16).hex() for _ in range(total)]
    made: dict[str, Any] = {
        "image_id": [f"{seed}-{i}" for i in range(total)],
        "path": [f"{CLASSES[i // n]}/{i}.jpg" for i in range(total)],
        "label": [CLASSES[i // n] for i in range(total)],
        "group": groups,
        "width": rng.integers(300, 900, total),
        "height": rng.integers(300, 900, total),
        **{name: rng.normal(size=total) for name in PROPERTIES},
    } | columns
    made.setdefault("split", [half(group, 0) for group in made["group"]])
    return table("images", pa.table(made).to_pylist())


def embeddings(of: pa.Table, vectors: np.ndarray) -> pa.Table:
    return pa.table({"image_id": of["image_id"], "embedding": list(vectors.astype(np.float32))})


def vectors(of: pa.Table, seed: int = 0) -> np.ndarray:
    """Noise about a direction of each class."""
    rng = np.random.default_rng(seed + 100)
    labels = of["label"].to_pylist()
    return rng.normal(size=(len(of), 12)) + 3 * np.eye(12)[[CLASSES.index(label) for label in labels]]


def run(of: pa.Table, looks: np.ndarray | None = None, quarantine: tuple = (), tmp: Any = "x") -> list[dict[str, Any]]:
    audit = audit_of(tmp, tmp)
    looks = vectors(of) if looks is None else looks
    made = check(of, table("quarantine", list(quarantine)), embeddings(of, looks), audit=audit, classes=CLASSES)
    return made["checks"].to_pylist()


def found(rows: list[dict[str, Any]]) -> set[tuple[str, str, str]]:
    return {(one["check"], one["what"], one["label"]) for one in rows if one["found"]}


def test_clean_data_are_clean_and_the_same_twice() -> None:
    rows = run(images())
    assert found(rows) == set()
    assert rows == run(images()) or str(rows) == str(run(images()))  # NaN is unlike itself
    assert {one["check"] for one in rows} == {"order", "copies", "balance", "properties"}


def test_a_darkened_class_is_found_whatever_its_share() -> None:
    brightness = np.random.default_rng(1).normal(size=240)
    brightness[80:160] -= 2
    of = images(brightness=brightness)
    rows = [one for one in run(of) if one["found"]]
    dark = min(rows, key=lambda one: one["statistic"])
    assert {one["what"] for one in rows} == {"brightness"} and dark["label"] == "owl"
    assert "darker" in dark["verdict"] and dark["statistic"] < 0.2 and dark["q"] < 0.001
    shown = [of["image_id"].to_pylist().index(name) for name in dark["examples"]]
    assert [of["label"][at].as_py() == "owl" for at in shown] == [True, True, False, False]
    values = np.array(of["brightness"].to_pylist())
    assert values[shown[0]] == values[80:160].min() and values[shown[2]] == np.delete(values, range(80, 160)).max()
    few = of.take([*range(80), *range(80, 95), *range(160, 240)])  # fifteen dark ones among 175
    assert ("properties", "brightness", "owl") in found(run(few))


def test_imbalance_is_no_correlation() -> None:
    of = images(100).take([*range(100), *range(100, 103), *range(200, 206)])
    assert {name for check_name, name, _ in found(run(of)) if check_name == "properties"} == set()
    assert found(run(of)) == {("balance", "images", "owl"), ("balance", "images", "cup"), ("balance", "classes", "")}


def test_size_shape_and_format_count_as_properties() -> None:
    rng = np.random.default_rng(0)
    width = np.where(np.arange(240) < 80, 1600, rng.integers(300, 900, 240))
    paths = [f"x/{i}.{'png' if i >= 160 else 'jpg'}" for i in range(240)]
    rows = run(images(width=width, path=paths))
    marks = found(rows)
    assert ("properties", "size", "boat") in marks and ("properties", "aspect", "boat") in marks
    assert ("properties", "format .png", "cup") in marks
    words = {(one["what"], one["label"]): one["verdict"] for one in rows if one["found"]}
    assert "wider" in words["aspect", "boat"] and "more often .png" in words["format .png", "cup"]


def test_copies_of_one_picture_count_once() -> None:
    """Eighty copies of one dark owl are one dark owl."""
    groups = [f"{i:032x}" for i in range(240)]
    brightness = np.random.default_rng(1).normal(size=240)
    brightness[80:159], groups[80:159] = -5, ["f" * 32] * 79
    rows = run(images(brightness=brightness, group=groups))
    assert not [one for one in rows if one["found"] and one["check"] == "properties"]
    near = next(one for one in rows if (one["check"], one["what"]) == ("copies", "near"))
    assert near["statistic"] == pytest.approx(78 / 240) and len(near["examples"]) == 4
    assert ("balance", "images", "owl") in found(rows)


def test_an_order_within_a_class_is_found_and_a_list_sorted_by_class_is_not() -> None:
    of, looks = images(), vectors(images())  # sorted by class, whose directions lie apart
    looks[80:160] += np.linspace(-4, 4, 80)[:, None] * np.eye(12)[7]
    rows = run(of, looks)
    assert {name for name in found(rows) if name[0] == "order"} == {
        ("order", "neighbours", ""),
        ("order", "neighbours", "owl"),
    }
    one = next(one for one in rows if one["label"] == "owl" and one["check"] == "order")
    places = sorted(of["image_id"].to_pylist().index(name) for name in one["examples"])
    assert places[-1] - places[0] < 30 and "29 %" in one["verdict"]


def test_a_large_set_is_sampled_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "MOST_OF_CLASS", 50)
    rows = run(images())
    assert "sample of 150 of 240" in rows[0]["verdict"] and rows[0]["n"] == 150
    monkeypatch.setattr(checks, "MOST_IMAGES", 120)
    assert "2 of 3 classes" in run(images())[0]["verdict"]


def test_near_copies_under_other_labels_and_in_both_halves() -> None:
    groups = [np.random.default_rng(i).bytes(16).hex() for i in range(240)]
    groups[100] = groups[3]  # an owl that is also a boat
    looks = vectors(images(group=groups))
    for place in range(10, 16):  # boats again, one bit off, in the other half, and alike
        start = int(groups[place], 16)
        twins = [f"{start ^ (1 << bit):032x}" for bit in range(128)]
        groups[place + 30] = next(twin for twin in twins if half(twin, 0) != half(groups[place], 0))
        looks[place + 30] = looks[place] + 1e-4
    rows = run(images(group=groups), looks)
    assert found(rows) == {("copies", "near, under other labels", ""), ("copies", "near, in both halves", "")}
    pairs = next(one for one in rows if one["what"] == "near, in both halves")
    assert pairs["statistic"] == 6
    apart = run(images(group=groups), vectors(images(group=groups)))  # hashes alone: the embeddings don't agree
    assert ("copies", "near, in both halves", "") not in found(apart)


def test_a_picture_of_two_labels_is_no_conflict() -> None:
    rows = [
        {"image_id": "1", "path": "x.jpg", "label": "boat", "group": "a" * 32},
        {"image_id": "2", "path": "x.jpg", "label": "owl", "group": "a" * 32},
    ]
    assert duplicates.conflicting(rows) == []
    more = [*rows, {"image_id": "3", "path": "y.jpg", "label": "owl", "group": "a" * 32}]
    assert [[one["image_id"] for one in group] for group in duplicates.conflicting(more)] == [["1", "3"]]
    given = [{**one, "group": "video-7"} for one in more]  # what the data call a group needn't be copies
    assert duplicates.conflicting(given) == []


@given(st.integers(0, 2**128 - 1), st.lists(st.integers(0, 127), min_size=1, max_size=6, unique=True))
def test_bands_find_every_pair_within_four_bits(start: int, flipped: list[int]) -> None:
    other = start
    for bit in flipped:
        other ^= 1 << bit
    strangers = [np.random.default_rng(i).bytes(16).hex() for i in range(40)]
    pairs = duplicates.near_pairs([f"{start:032x}", *strangers, "not a hash", f"{other:032x}"])
    assert pairs == ([(0, 42, len(flipped))] if len(flipped) <= duplicates.MOST_BITS else [])


def test_halves_of_the_data_that_differ_are_found_and_fair_ones_are_not() -> None:
    rng = np.random.default_rng(0)
    fair = images(split=[("selection", "estimation")[i] for i in rng.integers(0, 2, 240)])
    rows = run(fair)
    assert "halves" in {one["check"] for one in rows} and not [name for name in found(rows) if name[0] == "halves"]
    later = [("selection", "estimation")[i % 80 >= 40] for i in range(240)]
    looks = vectors(fair)
    looks[[i for i, part in enumerate(later) if part == "estimation"]] += 2 * np.eye(12)[9]
    assert ("halves", "looks", "") in found(run(images(split=later), looks))
    skewed = [("selection", "estimation")[(i < 80) ^ (i % 5 == 0)] for i in range(240)]
    assert ("halves", "mix of classes", "") in found(run(images(split=skewed)))


def test_without_an_encoder_the_rest_is_checked() -> None:
    of = images()
    empty = table("embeddings", [])
    rows = check(of, table("quarantine", []), empty, audit=audit_of("x", "x"), classes=CLASSES)["checks"].to_pylist()
    assert {one["check"] for one in rows} == {"copies", "balance", "properties"}


def test_false_alarms_stay_rare() -> None:
    """Thirty clean sets, each with families of tests of order and of properties at a false-discovery rate of 0.05."""
    alarms = sum(bool(found(run(images(60, seed), vectors(images(60, seed), seed)))) for seed in range(1, 31))
    assert alarms <= 6

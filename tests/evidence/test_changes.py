"""Two audits compared: cues matched by what they are, changes judged by their test, causes and images named."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evidence.change import causes_of, images_between, judge, match_cues
from pipeline.evidence.experiments import Experiment, Pair, pair_of
from pipeline.report import changes as words
from pipeline.stages.ablate import _turns
from pipeline.stages.ingest import later_ones

NAN = math.nan


def row(**more: Any) -> dict[str, Any]:
    return {
        "verdict_before": "confirmed",
        "verdict_after": "confirmed",
        "p": 0.001,
        "q": 0.01,
        "harm_change": 0.1,
        "data_part": 0.1,
        "data_part_p": 0.001,
        "effect_part": 0.0,
        "effect_part_p": 0.8,
        **more,
    }


@pytest.mark.parametrize(
    ("more", "change", "remark"),
    [
        ({}, "worse", ""),
        ({"harm_change": -0.1, "data_part": -0.1}, "better", ""),
        ({"q": 0.2}, "unchanged", ""),
        ({"harm_change": 0.004, "data_part": 0.004}, "unchanged", ""),  # sure, and too small to matter
        ({"data_part": -0.1}, "unchanged", ""),  # the surer part speaks against the sum
        ({"verdict_before": "inconclusive"}, "new", ""),
        ({"verdict_before": "", "p": NAN, "q": NAN}, "new", ""),
        ({"verdict_before": "inconclusive", "q": 0.4}, "new", "unseen"),
        ({"verdict_after": "inconclusive", "harm_change": -0.1, "data_part": -0.1}, "gone", ""),
        ({"verdict_after": "inconclusive", "q": 0.4}, "gone", "may be there still"),
        ({"verdict_after": "inconclusive", "p": NAN, "q": NAN}, "not compared", "confirmed before"),
        ({"verdict_after": "core", "p": NAN, "q": NAN}, "gone", "part of the object"),
        ({"verdict_before": "", "verdict_after": "associated only", "p": NAN, "q": NAN}, "not compared", ""),
    ],
)
def test_a_change_is_judged_by_its_verdicts_and_its_test(more: dict[str, Any], change: str, remark: str) -> None:
    found, said = judge(row(**more), 0.05)
    assert found == change and (remark in said if remark else said == "")


def side(
    names: dict[str, tuple[str, str, np.ndarray]], ids: list[str], encoder: str = "e", centroids: Any = None
) -> Any:
    """What `match_cues` looks at: cue id to (name, kind, presence)."""
    known = centroids or {}
    numbers = [int(cue.partition(":")[2]) for cue in known]
    clusters = pa.table({"cluster": numbers, "centroid": list(known.values())})
    return SimpleNamespace(
        ids=ids,
        cues={cue: {"name": name, "kind": kind} for cue, (name, kind, _) in names.items()},
        order={cue: number for number, cue in enumerate(names)},
        present=np.stack([shown for *_, shown in names.values()], axis=1),
        run={"fingerprints": {"encoder": encoder}},
        folder=SimpleNamespace(read=lambda name: clusters),
    )


def test_named_cues_are_matched_by_name_and_clusters_by_the_images_that_show_them() -> None:
    rng = np.random.default_rng(0)
    one, two = (rng.random(100) < 0.3 for _ in range(2))
    nearly = one.copy()
    nearly[:5] = ~nearly[:5]
    ids = [f"i{n}" for n in range(100)]
    a = side(
        {"thing:buoy": ("buoy", "named", one), "cluster:0": ("c", "unnamed", one), "cluster:1": ("d", "unnamed", two)},
        ids,
    )
    b = side(
        {
            "scene:buoy": ("Buoy", "named", two),  # found by another back end: the same cue
            "cluster:0": ("c", "unnamed", two[::-1]),  # a number says nothing
            "cluster:1": ("x", "unnamed", nearly),
            "cluster:2": ("y", "unnamed", two),
        },
        ids[::1],
    )
    found = match_cues(a, b)
    assert found["scene:buoy"][:2] == ("thing:buoy", "name")
    assert found["cluster:1"][0] == "cluster:0" and 0.6 < found["cluster:1"][2] < 1
    assert found["cluster:2"] == ("cluster:1", "images that show it", pytest.approx(1.0))
    assert "cluster:0" not in found


def test_without_common_images_centroids_tell_and_only_for_one_encoder() -> None:
    shown = np.arange(60) < 20
    x, y = np.eye(2, dtype=np.float32)
    a = side({"cluster:3": ("c", "unnamed", shown)}, [f"a{n}" for n in range(60)], "e", {"cluster:3": x})
    b = side({"cluster:7": ("c", "unnamed", shown)}, [f"b{n}" for n in range(60)], "e", {"cluster:7": x})
    assert match_cues(a, b)["cluster:7"][:2] == ("cluster:3", "looks of its regions")
    far = side({"cluster:7": ("c", "unnamed", shown)}, [f"b{n}" for n in range(60)], "e", {"cluster:7": y})
    other = side({"cluster:7": ("c", "unnamed", shown)}, [f"b{n}" for n in range(60)], "other", {"cluster:7": x})
    assert match_cues(a, far) == match_cues(a, other) == {}


def images(*rows: tuple[str, str, str]) -> pa.Table:
    ids, labels, splits = zip(*rows, strict=True)
    return pa.table({"image_id": ids, "label": labels, "path": [f"{i}.png" for i in ids], "split": splits})


def test_images_are_told_by_content() -> None:
    before = images(("1", "a", "selection"), ("2", "a", "estimation"), ("3", "b", "estimation"))
    after = images(("1", "a", "selection"), ("3", "a", "estimation"), ("4", "b", "estimation"))
    found = images_between(before, after)
    assert (found["added"], found["removed"], found["relabelled"]) == (1, 1, 1)
    assert found["added_paths"] == ["4.png"] and found["removed_by_class"] == {"a": 1}


def test_what_else_differs_is_named_and_where_the_data_lie_is_no_matter() -> None:
    same = images(("1", "a", "selection"), ("2", "a", "estimation"))
    run: dict[str, Any] = {
        "fingerprints": {"model": "m1"},
        "audit": {"data": {"path": "/x"}, "rank": {"q": 0.05}, "cache": None},
        "cuescope": "0.1", "code": "c1", "split": True, "classes": ["a", "b"], "versions": {"torch": "1"},
    }  # fmt: skip
    moved = {**run, "audit": {"data": {"path": "/y"}, "rank": {"q": 0.05}, "cache": "/z"}}
    assert causes_of(run, moved, same, same) == []
    changed = {**run, "fingerprints": {"model": "m2"}, "code": "c2", "versions": {"torch": "2"}}
    changed["audit"] = {"data": {"path": "/x"}, "rank": {"q": 0.1}, "cache": None}
    named = [cause["what"] for cause in causes_of(run, changed, same, same)]
    assert named == ["the model under test", "configuration: rank.q", "Cuescope's code", "package torch"]
    more = images(("1", "a", "selection"), ("5", "a", "selection"))
    assert [cause["what"] for cause in causes_of(run, run, same, more)] == ["the images that cues were chosen on"]
    heard = {**run, "verdicts": "3 answers, 0a1b2c3d"}
    assert [cause["what"] for cause in causes_of(run, heard, same, same)] == ["what labelers said before the run"]


def pairs(image_id: str, fills: int) -> list[Pair]:
    return [pair_of(image_id, f"fill{n}", {"of": image_id, "n": n}, {"of": image_id, "p": n}) for n in range(fills)]


@given(st.integers(1, 4), st.integers(8, 80), st.integers(0, 79))
def test_a_new_picture_leaves_most_others_their_fill(fills: int, n: int, place: int) -> None:
    """Turns are whole, no picture comes twice, and one more picture disturbs few."""
    ids = [f"image {number}" for number in range(n)]
    old, block = _turns(Experiment("a", "c", "removal", [p for i in ids for p in pairs(i, fills)]), 0)
    more = [*ids[: place % n], "a new one", *ids[place % n :]]
    new, _ = _turns(Experiment("a", "c", "removal", [p for i in more for p in pairs(i, fills)]), 0)
    assert block == fills and len(old) == n // fills * fills
    shown = [pair.edits[0].image_id for pair in old]
    assert len(set(shown)) == len(shown)
    for turn in range(0, len(old), fills):
        assert sorted(pair.fill for pair in old[turn : turn + fills]) == [f"fill{k}" for k in range(fills)]
    whole = min(
        sum(pair.fill == f"fill{k}" for pair in old) for k in range(fills)
    )  # at least the pictures in turns of their own fill keep it; the rest is as uneven as the hash
    kept = len({pair.pair_id for pair in old} & {pair.pair_id for pair in new})
    assert kept >= whole * fills - 6 * fills * math.isqrt(n)
    if fills == 1:
        assert kept == len(old)


@given(st.lists(st.sampled_from(["selection", "estimation"]), min_size=2, max_size=40), st.integers(0, 20))
def test_only_new_images_of_the_selection_half_wait_and_only_while_they_are_few(splits: list[str], n_new: int) -> None:
    before = images(*((f"{k}", "a", split) for k, split in enumerate(splits)))
    ids = [f"{k}" for k in range(len(splits))] + [f"new {k}" for k in range(n_new)]
    halves = splits + ["selection"] * n_new
    few = n_new <= 0.5 * splits.count("selection")
    assert later_ones(ids, halves, before, 0.5) == (set(range(len(splits), len(ids))) if few else set())
    assert later_ones(ids, halves, before, 0.0) == set()


def finding(**more: Any) -> dict[str, Any]:
    known = ("harm", "removal_effect", "insertion_effect", "prevalence_class", "prevalence_other")
    parts = ("harm_change", "data_part", "effect_part")
    return {
        "class": "boat",
        "cue": "buoy",
        "change": "worse",
        "why": "",
        "p": 0.01,
        "q": 0.02,
        "smallest_change": 0.03,
        **{f"{name}_{when}": 0.4 for name in known for when in ("before", "after")},
        **{f"{name}{end}": 0.0 for name in parts for end in ("", "_lower", "_upper")},
        **more,
    }


def test_a_change_is_said_in_plain_words() -> None:
    spread = finding(
        harm_change=0.06, harm_change_lower=0.02, harm_change_upper=0.1, data_part=0.06, data_part_lower=0.03,
        data_part_upper=0.09, prevalence_class_before=0.52, prevalence_class_after=0.7,
    )  # fmt: skip
    assert words.sentence(spread) == (
        "Harm rose by 6 of 100 predictions (2 to 10) (q 0.02). It shows in 70 of 100 boats, before in 52 (of 100 other "
        "images in 40, before in 40)."
    )
    assert "Harm as before; a change of 3 would have been seen" in words.sentence(finding())
    untested = words.sentence(finding(p=NAN, q=NAN, change="not compared", why="now, the class was not audited"))
    assert untested == "Now, the class was not audited."


@given(st.text(max_size=60))
def test_markdown_shows_names_as_they_are(name: str) -> None:
    text = words.escaped(name)
    assert "\n" not in text
    for character in "<>`*[]_|":
        assert text.count(character) == text.count(f"\\{character}")

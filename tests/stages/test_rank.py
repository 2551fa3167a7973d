from __future__ import annotations

import numpy as np
import pytest

from pipeline.config import Audit
from pipeline.evidence.race import STOPPED
from pipeline.records import table, worst_first
from pipeline.stages.rank import apart, explained, heard, measure_direction, own_effects, verdict
from pipeline.verdicts.settled import Opinion

NAN = float("nan")


def rows(share_edit: float, share_placebo: float, n: int = 40, seed: int = 0, fills=("mean", "blur")) -> list[dict]:
    """An experiment in which the class is lost in these shares of the images."""
    rng = np.random.default_rng(seed)
    result = []
    for image in range(n):
        for fill in fills:
            for arm, share in (("edit", share_edit), ("placebo", share_placebo)):
                lost = rng.random() < share
                result.append(
                    {
                        "image_id": f"i{image}",
                        "group": f"g{image}",
                        "fill": fill,
                        "arm": arm,
                        "score_before": 0.95,
                        "score_after": 0.05 if lost else 0.95,
                        "hit_before": True,
                        "hit_after": not lost,
                        "dose": NAN,
                    }
                )
    return result


def test_a_removal_that_loses_the_class_has_an_effect() -> None:
    found = measure_direction(rows(0.7, 0.1), "removal", 0.05, [0, 1])
    assert found.flips.estimate == pytest.approx(0.6, abs=0.15)
    assert 0.2 < found.flips.lower < found.flips.estimate < found.flips.upper
    assert found.p < 0.01


def test_an_edit_that_hurts_as_much_as_its_placebo_has_none() -> None:
    found = measure_direction(rows(0.5, 0.5), "removal", 0.05, [0, 1])
    assert found.flips.lower < 0 < found.flips.upper
    assert found.p > 0.05


def test_a_race_reports_the_p_of_its_e_value() -> None:
    found = measure_direction(rows(0.7, 0.1), "removal", 0.05, [0, 1], racing=True)
    assert found.p == 1 / found.e < 0.01
    assert found.score.lower < found.score.estimate < found.score.upper


def test_an_effect_below_the_smallest_of_interest_is_not_significant() -> None:
    shares = [measure_direction(rows(0.04, 0.0, n=60, seed=s), "removal", 0.1, [0, s]).p for s in range(10)]
    assert np.mean(np.array(shares) > 0.05) >= 0.9


def test_insertion_counts_images_won() -> None:
    won = [{**row, "hit_before": False, "score_before": 0.05} for row in rows(0.2, 0.9, fills=("paste",))]
    found = measure_direction(won, "insertion", 0.05, [0, 1])
    assert found.flips.estimate > 0.4


def test_p_values_are_honest_under_no_effect() -> None:
    p = np.array([measure_direction(rows(0.3, 0.3, n=30, seed=s), "removal", 0.0, [0, s]).p for s in range(120)])
    assert (p <= 0.05).mean() <= 0.1


AUDIT = Audit.from_dict(
    {"data": {"path": "x"}, "model": {"kind": "python", "factory": "tests.fakes:patch_lover"}, "seed": 0}
)


def finding(**more) -> dict:
    return {
        "verdict": "",
        "class": "boat",
        "object_overlap": NAN,
        "p": 0.001,
        "q": 0.01,
        "removal_p": 0.0005,
        "removal_effect_lower": 0.2,
        "removal_n": 20,
        "removal_dose": 0.9,
        "insertion_dose": NAN,
        "insertion_n": 20,
        "insertion_p": 0.6,
        "insertion_effect_lower": -0.1,
        "smallest_effect": 0.15,
        "log_odds_ratio_lower": 1.0,
        "removal_stopped": STOPPED["used up"],
        "insertion_stopped": STOPPED["no effect"],
        **more,
    }


INSERTION = {"removal_p": 0.6, "removal_effect_lower": -0.1, "insertion_p": 0.0005, "insertion_effect_lower": 0.3}


@pytest.mark.parametrize(
    ("change", "expected", "words"),
    [
        ({}, "confirmed", "Taking it out"),
        (INSERTION, "confirmed", "Putting it in"),
        ({"q": 0.2}, "associated only", "15 points"),
        ({"q": 0.2, "log_odds_ratio_lower": -0.2}, "inconclusive", "15 points"),
        ({"q": 0.2, "smallest_effect": 0.4}, "inconclusive", "40 points"),
        ({"removal_effect_lower": -0.01}, "associated only", "don't depend"),
        ({"q": 0.2, "smallest_effect": 0.4, "removal_stopped": STOPPED["no effect"]}, "associated only", "hardly move"),
        ({"p": NAN, "removal_p": NAN, "insertion_p": NAN}, "inconclusive", "No experiment"),
        ({"q": 0.2, "removal_dose": 0.2}, "inconclusive", "only a part of the cue (20 % of it by removal)"),
        (
            {"q": 0.2, "smallest_effect": 0.4, "removal_stopped": STOPPED["no effect"], "removal_dose": 0.1},
            "inconclusive",
            "10 % of it",
        ),
        ({"verdict": "core", "object_overlap": 0.8}, "core", "80 %"),
    ],
)
def test_verdicts(change: dict, expected: str, words: str) -> None:
    said, why = verdict(finding(**change), AUDIT, [])
    assert said == expected and words in why


def test_what_was_not_tested_is_said() -> None:
    _, why = verdict(finding(p=NAN, removal_p=NAN, insertion_p=NAN), AUDIT, ["removal: too few images"])
    assert "too few images" in why


def test_confirmed_findings_come_first_then_what_was_observed_then_what_experiments_speak_against() -> None:
    def row(name: str, **values: object) -> dict:
        base = {"verdict": "inconclusive", "resembles_class": False, "unmoved": False, "kind": "named",
                "observed_lower": 0.1, "e": 2.0,
                "log_odds_ratio_lower": 0.0, "harm_lower": NAN, "harm": NAN, "class": "boat",
                "cue_id": name}  # fmt: skip
        return base | values

    rows = [
        row("core", verdict="core"),
        row("itself", resembles_class=True, observed_lower=0.9),
        row("unmeasured", observed_lower=NAN),
        row("seen", unmoved=True, observed_lower=0.4),
        row("confirmed", verdict="confirmed", harm_lower=0.01),
        row("leaning", e=12.0, observed_lower=0.0),
    ]
    assert [r["cue_id"] for r in sorted(rows, key=worst_first)] == [
        "confirmed", "leaning", "unmeasured", "seen", "itself", "core",
    ]  # fmt: skip


def pasted(share_with: float, share_without: float, n_with: int = 20, n_without: int = 20) -> dict:
    """Insertions, some of them of pixels from pictures that show another cue ("with..."), and what share they win."""
    pairs = []
    for name, share, n in (("with", share_with, n_with), ("without", share_without, n_without)):
        for row in rows(share, 0.0, n=n, fills=("paste",)):
            won = {"hit_before": False, "hit_after": not row["hit_after"], "score_before": 0.05}
            won["score_after"] = 0.95 if won["hit_after"] else 0.05
            pairs.append((f"{name} {row['image_id']}", {**row, **won, "image_id": f"{name} {row['image_id']}",
                                                         "group": f"{name} {row['group']}"}))  # fmt: skip
    return {"insertion": pairs}


SHOWING = {f"with i{n}" for n in range(40)}
WON = {"insertion_effect_lower": 0.3, "removal_effect_lower": -0.2}


def test_an_effect_that_only_pictures_with_another_cue_give_is_not_a_findings_own() -> None:
    assert not apart(WON, pasted(0.9, 0.0), SHOWING, AUDIT)


def test_an_effect_that_pictures_without_the_other_cue_give_too_is_its_own() -> None:
    assert apart(WON, pasted(0.9, 0.7), SHOWING, AUDIT)


def test_too_few_pictures_without_the_other_cue_tell_nothing() -> None:
    assert not apart(WON, pasted(0.9, 1.0, n_without=5), SHOWING, AUDIT)


def test_edits_that_carry_no_pictures_pixels_are_a_findings_own() -> None:
    whole = [("", row) for _, row in pasted(0.9, 0.0)["insertion"]]
    assert apart(WON, {"insertion": whole}, SHOWING, AUDIT)


def test_a_direction_that_shows_no_effect_speaks_for_nothing_though_it_carries_nothing_of_the_other_cue() -> None:
    both = {"removal": [("elsewhere", row) for row in rows(0.0, 0.0)], **pasted(0.9, 0.0)}
    assert not apart(WON, both, SHOWING, AUDIT)


def test_what_people_call_spurious_comes_first_what_they_do_not_see_late_and_core_last() -> None:
    base = {"resembles_class": False, "unmoved": False, "kind": "named", "observed_lower": 0.1, "e": 2.0,
            "log_odds_ratio_lower": 0.0, "harm_lower": 0.2, "harm": 0.3, "class": "boat"}  # fmt: skip
    rows = [
        base | {"cue_id": name, "verdict": verdict, "labelers": people}
        for name, verdict, people in (
            ("core", "core", "core"),
            ("unseen", "inconclusive", "not present"),
            ("split", "inconclusive", "disagreed"),
            ("confirmed", "confirmed", ""),
            ("followed", "inconclusive", "spurious"),
            ("followed and confirmed", "confirmed", "spurious"),
        )
    ]
    assert [row["cue_id"] for row in sorted(rows, key=worst_first)] == [
        "followed and confirmed", "followed", "confirmed", "split", "unseen", "core",
    ]  # fmt: skip


def test_experiments_never_outvote_people_on_what_is_core() -> None:
    said, why = heard({"class": "boat", "verdict": "confirmed"}, Opinion("core", {"anna": "core"}))
    assert said == "core" and "1 core" in why
    said, why = heard({"class": "boat", "verdict": "confirmed"}, Opinion("not present", {"anna": "not present"}))
    assert said == "inconclusive" and "don't see it" in why


def tint(cue: str, effect: float, label: str = "cup", **more) -> dict:
    """A confirmed finding of a cue of the whole picture, shown by insertion."""
    return finding(
        **{
            "class": label,
            "cue_id": cue,
            "cue": cue,
            "kind": "named",
            "verdict": "confirmed",
            "removal_effect_lower": -0.2,
            "removal_edit_effect": 0.0,
            "insertion_effect": effect,
            "insertion_effect_lower": effect / 2,
            "insertion_edit_effect": effect,
            "harm_lower": effect / 4,
            "harm": effect / 3,
            "e": 1000.0,
            "observed_lower": 0.1,
            "unmoved": False,
            "resembles_class": False,
            **more,
        }
    )


def moved(*given: tuple[str, str, str, float]):
    names = ("label", "cue_id", "other", "dose")
    return table("moves", [{"direction": "insertion", **dict(zip(names, one, strict=True))} for one in given])


def test_the_share_that_another_cue_explains() -> None:
    dose = {("cup", "vivid", "insertion", "yellow"): -0.5}
    assert explained(tint("vivid", 0.3), tint("yellow", 0.9), dose) == pytest.approx(0.5 * 0.9 / 0.3)
    assert explained(tint("vivid", 0.3), tint("yellow", 0.9), {}) == 0.0
    # a direction that shows an effect of its own, which the other's doing doesn't reach, is enough
    both = tint("vivid", 0.3, removal_effect_lower=0.1, removal_edit_effect=0.4)
    assert explained(both, tint("yellow", 0.9), dose) == 0.0
    assert explained(tint("vivid", 0.3), tint("yellow", 0.9, insertion_effect_lower=-0.1), dose) == 0.0


def test_a_cue_whose_effect_is_anothers_doing_is_not_confirmed_beside_it_whatever_their_classes() -> None:
    rows = [tint("vivid", 0.3), tint("yellow", 0.9), tint("bright", 0.2, "hammer"), tint("blurry", 0.5, "hammer")]
    own_effects(
        rows,
        moved(
            ("cup", "vivid", "yellow", 0.5), ("cup", "yellow", "vivid", 0.3), ("hammer", "bright", "yellow", -0.2),
            ("hammer", "blurry", "yellow", 0.1),
        ),
    )  # fmt: skip
    assert [row["verdict"] for row in rows] == ["inconclusive", "confirmed", "inconclusive", "confirmed"]
    assert "yellow, which is confirmed" in rows[0]["why"] and "yellow, confirmed for cup" in rows[2]["why"]


def test_of_two_that_explain_each_other_the_one_with_more_of_its_own_stands() -> None:
    rows = [tint("low contrast", 0.45), tint("dark", 0.6)]
    own_effects(rows, moved(("cup", "low contrast", "dark", 0.8), ("cup", "dark", "low contrast", 0.85)))
    assert [row["verdict"] for row in rows] == ["inconclusive", "confirmed"]


def test_a_finding_that_another_taken_back_one_explains_stands() -> None:
    rows = [tint("a", 0.9), tint("b", 0.5), tint("c", 0.3)]
    own_effects(rows, moved(("cup", "b", "a", 0.6), ("cup", "c", "b", 0.5)))
    assert [row["verdict"] for row in rows] == ["confirmed", "inconclusive", "confirmed"]

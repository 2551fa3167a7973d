"""Proposals: what the data associate with a class, and what the model's errors have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from pipeline.config import Audit
from pipeline.models.caption_mining import caption_mining, phrases
from pipeline.models.protocols import Attribute, Proposals
from pipeline.records import table
from pipeline.stages.propose import judged, propose

CLASSES = ("boat", "train")
AUDIT = Audit.from_dict({"data": {"path": "."}, "model": {"kind": "python", "factory": "a:b"}})


def tables(rows: list[tuple[str, str, str, str]]) -> dict[str, pa.Table]:
    """rows: label, answer, split, caption."""
    images, predictions, captions = [], [], []
    for number, (label, answer, split, caption) in enumerate(rows):
        name = f"{number:03d}"
        image = dict.fromkeys(
            ("brightness", "contrast", "saturation", "tint_red", "tint_blue", "sharpness", "noise"), 0.0
        )
        images.append({"image_id": name, "path": name, "label": label, "split": split, "group": name, "width": 1,
                       "height": 1, **image})  # fmt: skip
        predictions.append({"image_id": name, "predicted": answer, "logits": [0.0, 0.0], "scores": [0.5, 0.5]})
        captions.append({"image_id": name, "caption": caption})
    return {
        "images": table("images", images),
        "predictions": table("predictions", predictions),
        "captions": table("captions", captions),
        "annotations": table("annotations", []),
        "verdicts": table("verdicts", []),
    }


def rows_of(
    rows: list[tuple[str, str, str, str]], proposer: object, skipped: list[tuple[str, str]] | None = None
) -> list[dict]:
    note = skipped if skipped is not None else []
    return propose(
        **tables(rows), audit=AUDIT, classes=CLASSES, proposer=proposer,  # type: ignore[arg-type]
        model=object(), encoder=None, cache=Path("unused"), count=lambda what, n: None,
        skip=lambda what, why: note.append((what, why)), progress=lambda done, total: None,
    )["attributes"].to_pylist()  # fmt: skip


def proposed(rows: list[tuple[str, str, str, str]], proposer: object) -> dict[str, list[str]]:
    result: dict[str, list[str]] = {name: [] for name in CLASSES}
    for row in rows_of(rows, proposer):
        result[row["label"]].append(row["phrase"])
    return result


def misled(split: str) -> list[tuple[str, str, str, str]]:
    """Trains beside a buoy are taken for boats; boats have no more buoys than trains."""
    rows = [("train", "boat", split, "A photo of a train and a buoy, with a boat.")] * 12
    rows += [("train", "train", split, "A photo of a train on a meadow.")] * 30
    rows += [("boat", "boat", split, "A photo of a boat and a buoy.")] * 12
    return rows + [("boat", "boat", split, "A photo of a boat on a meadow.")] * 30


def test_what_errors_have_in_common_is_proposed_though_the_data_are_even() -> None:
    found = proposed(misled("selection"), caption_mining(0, Path()))
    assert "buoy" in found["boat"]
    assert "buoy" not in found["train"]
    assert not {"train", "boat"} & {*found["boat"], *found["train"]}


def test_no_caption_is_held_after_the_stage() -> None:
    assert proposed(misled("selection"), caption_mining(0, Path()))
    assert phrases.cache_info().currsize == 0


def test_errors_of_the_estimation_half_propose_nothing() -> None:
    even = [
        (c, c, "selection", f"A photo of a {c} {w}.") for c in CLASSES for w in ["and a buoy"] * 12 + ["alone"] * 30
    ]
    assert "buoy" not in proposed(misled("estimation") + even, caption_mining(0, Path()))["boat"]


class Costly:
    """A proposer that counts how often it is asked."""

    fingerprint = "costly"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def propose(self, class_name: str, classes: Sequence[str], captions: Mapping[str, Sequence[str]]) -> Proposals:
        self.asked.append(class_name)
        return Proposals((Attribute("buoy", "Co-occurring Objects"),), calls=1, tokens=10)


def test_a_proposer_that_costs_calls_is_asked_once_a_class() -> None:
    proposer = Costly()
    found = proposed(misled("selection"), proposer)
    assert proposer.asked == ["boat", "train"]
    assert found == {"boat": ["buoy"], "train": ["buoy"]}


def test_a_proposer_that_costs_calls_is_not_asked_about_errors_from_its_cache_either() -> None:
    class Cached(Costly):
        def propose(self, class_name: str, classes: Sequence[str], captions: Mapping[str, Sequence[str]]) -> Proposals:
            self.asked.append(class_name)
            return Proposals((Attribute("buoy", "Co-occurring Objects"),))

    proposer = Cached()
    proposed(misled("selection"), proposer)
    assert proposer.asked == ["boat", "train"]


class Two:
    """Two spellings of one cue in one class, a third in the other; then its budget is spent."""

    fingerprint = "two"

    def propose(self, class_name: str, classes: Sequence[str], captions: Mapping[str, Sequence[str]]) -> Proposals:
        thing = "Co-occurring Objects"
        if class_name == "boat":
            return Proposals((Attribute("buoy", thing, source="captions"), Attribute("buoys", thing, source="openai")))
        return Proposals((Attribute("a buoy", thing, "near it"),), stopped="the budget is spent")


def test_one_name_for_a_cue_in_all_classes_with_every_source() -> None:
    skipped: list[tuple[str, str]] = []
    boat, train = rows_of(misled("selection"), Two(), skipped)
    assert (boat["phrase"], boat["source"]) == ("buoy", "captions, openai")
    assert (train["phrase"], train["source"], train["reason"]) == ("buoy", "captions", "as 'a buoy': near it")
    assert skipped == [("proposals for train", "the budget is spent")]


def test_what_people_judged_is_proposed_whether_or_not_anything_else_proposes_it() -> None:
    def said(cue: str, verdict: str, label: str = "boat") -> dict:
        return {
            "class": label,
            "cue_id": f"thing:{cue}",
            "cue": cue,
            "cue_type": "Co-occurring Objects",
            "kind": "named",
            "image_id": "",
            "verdict": verdict,
            "present": None,
            "boxes": [],
            "annotator": "anna",
            "given": "",
            "source": "csv",
            "note": "",
            "called": "",
            "center": [],
            "encoder": "",
        }

    verdicts = table(
        "verdicts",
        [
            said("buoy", "spurious"), said("hull", "core"), said("gull", "not present"), said("oar", "unsure"),
            said("rail", "spurious", "plane"), said("red tint", "spurious"), said("meadow", "spurious"),
        ],
    )  # fmt: skip
    known = [{"label": "boat", "phrase": "meadow"}]
    rows = judged(verdicts, CLASSES, known)
    assert [(row["label"], row["phrase"], row["source"]) for row in rows] == [
        ("boat", "buoy", "labelers"),
        ("boat", "hull", "labelers"),
    ]
    assert rows[0]["reason"] == "labelers: 1 spurious"
    table("attributes", rows)

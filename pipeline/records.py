"""The tables of an audit: one Arrow schema each, checked on every write and read. They are the only contract
between the stages, the report, the exports and the comparison of audits.

Scores and shares lie in [0, 1] unless a name says otherwise; effects and gaps are differences of shares, so they
lie in [-1, 1]; `_lower` and `_upper` bound a 95 % interval; NaN (null in text) means "not measured".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

CueType = Literal[
    "Background",
    "Co-occurring Objects",
    "Orientation",
    "Shape",
    "Texture and Noise",
    "Colorization",
    "Lighting and Shadows",
    "Perspective and Angle",
    "Relative Size",
]
"""The nine types of MM-SpuBench (arXiv 2406.17126), with its own spelling."""
CUE_TYPES: tuple[str, ...] = get_args(CueType)

THINGS = frozenset({"Co-occurring Objects", "Shape", "Texture and Noise"})
"""The types whose cues may lie in a box; a cue of another type is a matter of the whole image."""

VERDICTS = ("confirmed", "associated only", "core", "inconclusive")

ANSWERS = ("spurious", "core", "not present", "unsure")
"""What a person may say of a finding, or of a picture of one."""
DISAGREED = "disagreed"
"""What people say of a finding where no answer has more than half of their votes."""

LEANING = 10**0.5
"""From this e-value on an experiment speaks for an effect, if not as loudly as many tests at once demand: "substantial"
evidence on Jeffreys' scale (Theory of Probability, 1961, appendix B)."""


def worst_first(finding: Mapping[str, Any]) -> tuple[Any, ...]:
    """The sort key of findings, everywhere: confirmed ones by their harm, then the rest by what was observed.

    Of the rest, those that experiments lean towards come first, those whose first edits hardly move the model later,
    regions that look like the class itself after them, and core ones last. The first edits: the order must not depend
    on how far an experiment went. Findings that people call spurious are followed: they come before all others, in
    this same order; those that people don't see in the pictures come just before the core ones.
    """
    e, people = finding["e"], finding.get("labelers", "")
    tier = 1 if e is not None and e >= LEANING else 3 if finding["unmoved"] else 2
    order = {"confirmed": 0, "core": 8}.get(finding["verdict"], tier + (3 if finding["resembles_class"] else 0))
    if people == "not present" and order != 8:
        order = 7
    names = ("harm_lower", "harm") if not order else ("observed_lower", "log_odds_ratio_lower")
    low, worth = (-np.inf if v is None or np.isnan(v) else v for v in (finding[name] for name in names))
    followed = people == "spurious"
    return not followed, order, -low, -worth, finding["kind"] == "unnamed", finding["class"], finding["cue_id"]


SPLITS = ("selection", "estimation", "set aside")
"""Halves of the images; set aside is what came into the selection half after its cues were chosen."""

TEXT, REAL, SINGLE, WHOLE, YES = pa.string(), pa.float64(), pa.float32(), pa.int64(), pa.bool_()
BOX = pa.list_(pa.float64(), 4)
VECTOR = pa.list_(pa.float32())


def _schema(**columns: pa.DataType) -> pa.Schema:
    return pa.schema([pa.field(name, kind) for name, kind in columns.items()])


PROPERTIES = ("brightness", "contrast", "saturation", "tint_red", "tint_blue", "sharpness", "noise")
"""Measured on each image at ingest: see pipeline/properties.py."""

SCHEMAS: dict[str, pa.Schema] = {
    # people's answers, of this audit and of earlier ones of the same data set: one row an answer
    "verdicts": _schema(
        **{"class": TEXT},
        cue_id=TEXT,  # in the audit that was judged
        cue=TEXT,  # a named cue is known again by its name
        cue_type=TEXT,
        kind=TEXT,
        image_id=TEXT,  # the picture that was judged, or empty: the finding as a whole
        verdict=TEXT,  # one of ANSWERS, or empty where only presence was asked
        present=YES,  # whether the cue is in the picture; null where that wasn't said
        boxes=pa.list_(BOX),  # where the person marked it
        annotator=TEXT,
        given=TEXT,  # when, ISO 8601 in UTC
        source=TEXT,  # label-studio, csv, jsonl, review
        note=TEXT,
        called=TEXT,  # what the person calls the cue, or empty; cues that are called alike are one
        center=VECTOR,  # of an unnamed cue: its cluster's centroid, by which it is known again; else empty
        encoder=TEXT,  # fingerprint of the region encoder that `center` comes from
    ),
    # ingest
    "images": _schema(
        image_id=TEXT,  # blake2b of the bytes, and of the annotations where there are any
        path=TEXT,  # relative to the data source's root
        label=TEXT,
        split=TEXT,  # selection | estimation | set aside
        group=TEXT,  # images of one group are near-duplicates and count once
        width=WHOLE,
        height=WHOLE,
        **dict.fromkeys(PROPERTIES, REAL),
    ),
    "quarantine": _schema(path=TEXT, reason=TEXT),
    # what the data set itself says of an image; a row where it says anything
    "annotations": _schema(
        image_id=TEXT,
        caption=TEXT,  # or empty
        phrases=pa.list_(TEXT),  # what each box holds
        boxes=pa.list_(BOX),
        other_labels=pa.list_(TEXT),  # classes of the audit that the image has too: a row of `images` each
    ),
    # predict: one row an image; vectors run over the classes of run.json in order
    # (of a softmax; of a multimodal LLM log-odds and probabilities of Yes, each class for itself)
    "predictions": _schema(image_id=TEXT, predicted=TEXT, logits=VECTOR, scores=VECTOR),
    # one row a question to a multimodal LLM; yes is a probability, NaN where the words say neither Yes nor No
    "answers": _schema(image_id=TEXT, label=TEXT, prompt=TEXT, yes=REAL, answer=TEXT),
    # caption
    "captions": _schema(image_id=TEXT, caption=TEXT),
    # propose: one row a (class, attribute)
    "attributes": _schema(label=TEXT, phrase=TEXT, cue_type=TEXT, source=TEXT, reason=TEXT, score=REAL),
    # detect: boxes of things (attributes and the classes themselves)
    "detections": _schema(image_id=TEXT, phrase=TEXT, score=SINGLE, box=BOX),
    # embed
    "regions": _schema(region_id=TEXT, image_id=TEXT, source=TEXT, box=BOX, embedding=VECTOR),
    "embeddings": _schema(image_id=TEXT, embedding=VECTOR),
    # check: one row a check of the data, and a class where it is one of a class
    "checks": _schema(
        check=TEXT,  # order | copies | balance | halves | properties; between audits: added images | removed images
        what=TEXT,
        label=TEXT,  # or empty
        found=YES,
        verdict=TEXT,  # a sentence or two
        statistic=REAL,  # what it is depends on check and what: see docs/data-checks.md
        lower=REAL,
        upper=REAL,
        p=REAL,
        q=REAL,  # over all tests of the same check
        n=WHOLE,  # images that were looked at
        examples=pa.list_(TEXT),  # image ids
    ),
    # cluster
    "clusters": _schema(
        cluster=WHOLE,
        size=WHOLE,
        images=WHOLE,
        medoid=TEXT,
        name=TEXT,
        name_score=REAL,
        threshold=REAL,
        centroid=VECTOR,
    ),
    "assignments": _schema(region_id=TEXT, image_id=TEXT, cluster=WHOLE, similarity=REAL),
    # measure
    "cues": _schema(
        cue_id=TEXT,
        name=TEXT,
        cue_type=TEXT,
        kind=TEXT,  # named | unnamed
        operator=TEXT,  # region, background, property:<name>, geometry:<edits>, or empty with a reason
        source=TEXT,
        looks_like=TEXT,  # of an unnamed cue: what the encoder would call its regions, or empty
        threshold=REAL,
        untestable=TEXT,  # why it can't be ablated, a line a direction, or empty
    ),
    "presence": _schema(image_id=TEXT, cue_id=TEXT, score=REAL, present=YES),
    "measures": _schema(
        label=TEXT,
        cue_id=TEXT,
        split=TEXT,
        n_class_with=WHOLE,
        n_class_without=WHOLE,
        n_other_with=WHOLE,
        n_other_without=WHOLE,
        log_odds_ratio=REAL,
        log_odds_ratio_lower=REAL,
        log_odds_ratio_upper=REAL,
        cramers_v=REAL,
        pa_gap=REAL,  # accuracy on the class's images with the cue, less without
        pa_gap_lower=REAL,
        pa_gap_upper=REAL,
        hr_gap=REAL,  # share of other classes' images taken for the class with the cue, less without
        hr_gap_lower=REAL,
        hr_gap_upper=REAL,
        pa_gap_top_k=REAL,  # SpurLens: top K less bottom K by presence score
        hr_gap_top_k=REAL,
        null_pa_gap_top_k=REAL,  # the best of as many random orderings as cues were tried for the class
        null_hr_gap_top_k=REAL,
        n_nonzero=WHOLE,
        ravl_gap=REAL,  # RaVL: weighted gap of this class; clusters only
        ravl_total_gap=REAL,
        ravl_influence=REAL,
        object_overlap=REAL,  # mean share of the cue's boxes that lies in the class's own boxes
        selected=YES,  # chosen for ablation (decided on the selection half)
    ),
    # a row a (class, prompt) of a multimodal LLM, and one for the prompts that count together; once for each source of
    # pictures without the object. Own pictures without it have rows of the class's other cues too, for the prompts
    # together (of other classes' pictures they are in `measures`)
    "variants": _schema(
        label=TEXT,
        variant=TEXT,  # the prompt's name, or "all that count"
        source=TEXT,  # other classes | object masked | object removed: the pictures of n_absent and hr
        counts=YES,
        n_present=WHOLE,
        n_absent=WHOLE,
        pa=REAL,  # perception accuracy: share of Yes about the class's own images
        pa_lower=REAL,
        pa_upper=REAL,
        hr=REAL,  # hallucination rate: share of Yes about pictures without the object
        hr_lower=REAL,
        hr_upper=REAL,
        cue_id=TEXT,  # the class's most promising cue, by the selection half
        pa_gap_top_k=REAL,
        hr_gap_top_k=REAL,
        neither=REAL,  # share of answers that say neither Yes nor No; they count as not Yes
        blank_yes=REAL,  # mean probability of Yes about pictures that show nothing
        no_image_yes=REAL,  # probability of Yes to the question without an image
    ),
    # ablate: one row an edited image; the two rows of a pair differ in their arm alone
    "edits": _schema(
        edit_id=TEXT,
        pair_id=TEXT,
        label=TEXT,
        cue_id=TEXT,
        direction=TEXT,  # removal | insertion
        fill=TEXT,  # how the pixels were replaced: a fill's name, or paste, background, property, geometry
        arm=TEXT,  # edit | placebo
        image_id=TEXT,
        group=TEXT,
        spec=TEXT,  # the edit itself, as JSON for pipeline/evidence/edits.py
        score_before=REAL,
        score_after=REAL,
        margin_before=REAL,  # logit of the class less the best other logit
        margin_after=REAL,
        hit_before=YES,  # predicted as the class
        hit_after=YES,
        dose=REAL,  # how much of the cue came in or went, 1 being the natural difference; NaN where not measured
    ),
    # one row an experiment that was made
    "experiments": _schema(
        label=TEXT,
        cue_id=TEXT,
        direction=TEXT,
        images=WHOLE,  # that were edited
        images_at_hand=WHOLE,
        forwards=WHOLE,  # edits and placebos that the model was shown
        exhaustive_forwards=WHOLE,  # what every edit with every fill would have taken
        stopped=TEXT,  # why no more images were edited
        unmoved=YES,  # the edits of the first images hardly move the model
    ),
    "untested": _schema(label=TEXT, cue_id=TEXT, direction=TEXT, reason=TEXT),
    "moves": _schema(  # what edits of one cue of the whole picture do to another cue
        label=TEXT,
        cue_id=TEXT,
        direction=TEXT,
        other=TEXT,  # the other cue's id
        dose=REAL,  # beyond the placebo; 1 is the natural difference between pictures with the other cue and without
    ),
    # rank
    "findings": _schema(
        finding_id=TEXT,
        rank=WHOLE,  # within the class, 1 is the worst
        **{"class": TEXT},
        cue_id=TEXT,
        cue=TEXT,
        cue_type=TEXT,
        kind=TEXT,
        source=TEXT,
        verdict=TEXT,
        why=TEXT,  # the verdict's reason in a sentence
        harm=REAL,  # expected share of predictions that change if the cue no longer goes with the class
        harm_lower=REAL,
        harm_upper=REAL,
        removal_effect=REAL,  # share of the class's images lost without the cue, less placebo, at a natural dose
        removal_effect_lower=REAL,
        removal_effect_upper=REAL,
        removal_edit_effect=REAL,  # the same of the edit as it is, whatever its dose
        removal_dose=REAL,  # of the cue that the edits gave beyond their placebos, 1 being as in nature
        removal_n=WHOLE,
        removal_p=REAL,
        removal_stopped=TEXT,  # why no more images were edited, or empty
        insertion_effect=REAL,  # share of other images taken for the class with it, less placebo, at a natural dose
        insertion_effect_lower=REAL,
        insertion_effect_upper=REAL,
        insertion_edit_effect=REAL,  # the same of the edit as it is, whatever its dose
        insertion_dose=REAL,  # of the cue that the edits gave beyond their placebos, 1 being as in nature
        insertion_n=WHOLE,
        insertion_p=REAL,
        insertion_stopped=TEXT,
        unmoved=YES,  # in no direction that was tested the edits of the first images move the model
        removal_score_effect=REAL,  # the same in the class's score (probability) instead of flips
        removal_score_effect_lower=REAL,  # these bounds hold however one stopped (a confidence sequence)
        removal_score_effect_upper=REAL,
        insertion_score_effect=REAL,
        insertion_score_effect_lower=REAL,
        insertion_score_effect_upper=REAL,
        fill_spread=REAL,  # largest less smallest removal effect among the fills
        smallest_effect=REAL,  # smallest effect that could have been seen with 80 % power
        e=REAL,  # evidence of an effect above rank.smallest_effect: see metrics/anytime.py
        p=REAL,
        q=REAL,
        log_odds_ratio=REAL,
        log_odds_ratio_lower=REAL,
        log_odds_ratio_upper=REAL,
        cramers_v=REAL,
        pa_gap=REAL,
        pa_gap_lower=REAL,
        pa_gap_upper=REAL,
        hr_gap=REAL,
        hr_gap_lower=REAL,
        hr_gap_upper=REAL,
        pa_gap_top_k=REAL,
        hr_gap_top_k=REAL,
        null_pa_gap_top_k=REAL,
        null_hr_gap_top_k=REAL,
        ravl_gap=REAL,
        ravl_influence=REAL,
        object_overlap=REAL,
        observed_lower=REAL,  # larger lower bound of the two gaps: the order of findings that aren't confirmed
        prevalence_class=REAL,
        prevalence_other=REAL,
        n_class_with=WHOLE,
        n_class_without=WHOLE,
        n_other_with=WHOLE,
        n_other_without=WHOLE,
        labelers=TEXT,  # what people say of it: one of ANSWERS, DISAGREED, or empty
        called=TEXT,  # what people call the cue, or empty
        resembles_class=YES,  # an unnamed cue that the encoder would call by the class's own name
        same_as=TEXT,  # cue_id of a higher finding of the class that is the same cue by another name, or empty
        evidence_ids=pa.list_(TEXT),
        evidence_boxes=pa.list_(pa.list_(BOX)),  # the cue's boxes in each evidence image
    ),
    # compare: one row a (class, cue) of either audit; see evidence/change.py
    "changes": _schema(
        **{"class": TEXT},
        cue=TEXT,
        cue_type=TEXT,
        kind=TEXT,
        change=TEXT,  # new | worse | better | gone | unchanged | not compared
        why=TEXT,  # why it isn't compared, or what the comparison leaves out or doesn't show, or empty
        cue_id_before=TEXT,  # or empty
        cue_id_after=TEXT,
        matched_by=TEXT,  # name | images that show it | looks of its regions, or empty
        likeness=REAL,
        **{
            f"{name}_{when}": kind
            for name, kind in (
                ("verdict", TEXT),
                ("harm", REAL),
                ("removal_effect", REAL),
                ("insertion_effect", REAL),
                ("prevalence_class", REAL),
                ("prevalence_other", REAL),
            )
            for when in ("before", "after")
        },  # as the audits' own findings say
        harm_change=REAL,  # after less before, over the directions that both tested, at one dose
        harm_change_lower=REAL,
        harm_change_upper=REAL,
        data_part=REAL,  # of it, because the cue is more or less common
        data_part_lower=REAL,
        data_part_upper=REAL,
        data_part_p=REAL,
        effect_part=REAL,  # of it, because the model reacts more or less to it
        effect_part_lower=REAL,
        effect_part_upper=REAL,
        effect_part_p=REAL,
        smallest_change=REAL,  # smallest true change of harm that could have been seen with 80 % power
        p=REAL,  # of no change; NaN where no direction was tested in both audits
        q=REAL,
    ),
}


def matrix(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """A column of equally long vectors as an array (n, d); (0, 0) of none."""
    flat = pa.compute.list_flatten(column).to_numpy().astype(np.float32, copy=False)
    return flat.reshape(len(column), -1) if len(column) else np.zeros((0, 0), np.float32)


def vectors(array: NDArray[np.float32]) -> pa.ListArray:
    """Vectors (n, d) as a column."""
    n, d = array.shape
    return pa.ListArray.from_arrays(
        np.arange(n + 1, dtype=np.int32) * d, np.ascontiguousarray(array, np.float32).ravel()
    )


def of_half(images: pa.Table, split: str) -> NDArray[np.bool_]:
    """(images,): which rows of `images` are of a half, "selection" or "estimation"."""
    return np.asarray(pa.compute.equal(images["split"], split).to_numpy(), dtype=bool)


def box_column(boxes: NDArray[np.float64]) -> pa.FixedSizeListArray:
    """Boxes (n, 4) as a column."""
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(boxes).ravel(), pa.float64()), 4)


def box_array(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """A column of boxes as an array (n, 4)."""
    return np.asarray(pa.compute.list_flatten(column).to_numpy(), dtype=np.float64).reshape(-1, 4)


def places(column: pa.ChunkedArray, at: Mapping[str, int]) -> NDArray[np.int64]:
    """The number (n,) that each text of a column has in `at`; -1 where it has none."""
    encoded = column.combine_chunks().dictionary_encode()
    numbers = np.array([at.get(text, -1) for text in encoded.dictionary.to_pylist()], dtype=np.int64)
    return numbers[encoded.indices.to_numpy()]


class SchemaError(Exception):
    """A table doesn't fit its schema: a fault of a stage, never of the user."""


def conform(name: str, table: pa.Table) -> pa.Table:
    """The table with its schema's columns, order and types.

    Raises:
        SchemaError: a column is missing, unknown or can't be cast.
    """
    schema = SCHEMAS[name]
    if set(table.column_names) != set(schema.names):
        missing, extra = (
            set(schema.names) - set(table.column_names),
            set(table.column_names) - set(schema.names),
        )
        raise SchemaError(f"table '{name}': missing columns {sorted(missing)}, unknown columns {sorted(extra)}")
    try:
        return table.select(schema.names).cast(schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise SchemaError(f"table '{name}': {error}") from error


def table(name: str, rows: list[dict]) -> pa.Table:
    """Rows as the named table; keys must be exactly the columns."""
    schema = SCHEMAS[name]
    for row in rows[:1]:
        if set(row) != set(schema.names):
            raise SchemaError(f"table '{name}': row has {sorted(set(row) ^ set(schema.names))} too much or too little")
    return pa.Table.from_pylist(rows, schema=schema)

"""Which cue is in which image: the cues of an audit and their presence, from every source of evidence.

- a thing in words: its best detection score;
- a whole-image attribute in words: similarity of the image's and the words' vectors, less that to neutral words;
- a measured property: its score (pipeline/properties.py);
- a region cluster: the nearest of the image's regions that belong to it.

Thresholds are chosen on the selection half only (Otsu, 1979: the cut that leaves the least variance within). A measured
property has less, usual and more of itself: of the two cuts between three groups (Otsu, section IV) the upper counts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.evidence.answered import calibrated_cut
from pipeline.evidence.boxes import undisputed
from pipeline.evidence.columns import release, scratch
from pipeline.evidence.geometry_edits import FITTING
from pipeline.evidence.manipulation import (
    MOST_IMAGES,
    choose_operator,
    encode_once,
    images_to_try,
    in_words,
    try_operators,
)
from pipeline.evidence.texts import text_embeddings
from pipeline.images import RGB
from pipeline.models.protocols import Floats, RegionEncoder
from pipeline.places import Place
from pipeline.properties import PROPERTY_CUES, TINTS, property_score
from pipeline.records import PROPERTIES, THINGS, matrix, places
from pipeline.store import GROUP, Parts, batches, length
from pipeline.verdicts.settled import name_of

NEUTRAL = ("a photo", "a picture", "an image of a scene")
TEMPLATES = ("{}", "a photo with {}", "a photo of {}")
TWO_HUMPS = 0.75
PHI_ROWS = 1 << 12
NOTHING: Mapping[str, Mapping[str, bool]] = {}
DETECTION_RANGE = (0.2, 0.6)
"""A detection threshold stays in this range, whatever the scores: below it everything, above it nothing, is present."""


@dataclass(frozen=True)
class Cues:
    """All cues of an audit over its images: `scores` and `present` are (images, cues); `rows` are table `cues`.

    Large `scores` lie in a file (evidence/columns.py), cue by cue.
    """

    rows: list[dict]
    image_ids: list[str]
    scores: NDArray[np.float64]
    present: NDArray[np.bool_]

    def presence_table(self) -> Iterator[pa.Table]:
        """The table `presence`, one row an (image, cue), some images at a time."""
        ids = pa.array([row["cue_id"] for row in self.rows], pa.string())
        for first in range(0, len(self.image_ids) if self.rows else 0, GROUP):
            rows = slice(first, min(first + GROUP, len(self.image_ids)))
            image, cue = np.mgrid[: rows.stop - rows.start, : len(ids)].reshape(2, -1)
            yield pa.table(
                {
                    "image_id": pa.array(self.image_ids[rows], pa.string()).take(image),
                    "cue_id": ids.take(cue),
                    "score": np.asarray(self.scores[rows]).ravel(),
                    "present": self.present[rows].ravel(),
                }
            )
            release(self.scores)


@dataclass(frozen=True)
class Presence:
    """What a stage needs of the table `presence`: `present` (images, cues), and the scores of some cues.

    `at` says which column is a cue's.
    """

    at: dict[str, int]
    present: NDArray[np.bool_]
    scores: dict[str, NDArray[np.float64]]

    @classmethod
    def of(
        cls,
        presence: Parts,
        cue_ids: Sequence[str],
        wanted: Collection[str] | None = None,
        scored: Collection[str] = (),
        images: NDArray[np.int64] | None = None,
    ) -> Presence:
        """Read the table part by part, and hold no more of it than is asked for.

        Args:
            presence: the table.
            cue_ids: all cues, in the table's order.
            wanted: the cues that are needed; None: all.
            scored: those whose scores are, each (images,).
            images: numbers of the images that are needed, ascending; None: all.
        """
        n = len(cue_ids)
        kept = [number for number, cue_id in enumerate(cue_ids) if wanted is None or cue_id in wanted]
        with_scores = [number for number, cue_id in enumerate(cue_ids) if cue_id in scored]
        at = {cue_ids[number]: column for column, number in enumerate(kept)}
        if not n:
            return cls(at, np.zeros((0, 0), bool), {})
        number = length(presence) // n
        images = np.arange(number) if images is None else images
        present, scores = np.empty((len(images), len(kept)), bool), np.empty((len(with_scores), len(images)))
        done = 0
        for part in batches(presence, ["score", "present"]):
            first, done = done, done + len(part) // n
            rows = slice(*np.searchsorted(images, (first, done)))
            mine = images[rows] - first
            shown = part["present"].combine_chunks().to_numpy(zero_copy_only=False).reshape(-1, n)
            present[rows] = shown[mine][:, kept]
            scores[:, rows] = part["score"].to_numpy().reshape(-1, n)[mine][:, with_scores].T
        return cls(at, present, {cue_ids[number]: scores[row] for row, number in enumerate(with_scores)})


def otsu(scores: NDArray[np.float64]) -> float:
    """The threshold between two groups of scores that maximises the variance between them (Otsu 1979, eq. 12)."""
    values = np.sort(scores[np.isfinite(scores)])
    if len(values) < 2 or values[0] == values[-1]:
        return float("inf")
    below = np.arange(1, len(values))
    sums = np.cumsum(values)
    low, high = sums[:-1] / below, (sums[-1] - sums[:-1]) / (len(values) - below)
    between = below * (len(values) - below) * (high - low) ** 2
    between[values[1:] == values[:-1]] = -1.0  # no cut between equal scores
    cut = int(between.argmax())
    return float((values[cut] + values[cut + 1]) / 2)


def upper_of_two_cuts(scores: NDArray[np.float64], steps: int = 100) -> float:
    """The upper threshold of the three groups of scores with the most variance between them (Otsu 1979, section IV).

    Cuts are tried at `steps` quantiles.
    """
    values = np.sort(scores[np.isfinite(scores)])
    cuts = (
        np.unique(np.quantile(values, np.linspace(0, 1, steps + 2)[1:-1], method="higher"))
        if len(values)
        else np.zeros(0)
    )
    if len(cuts) < 3:
        return otsu(scores)
    below = np.searchsorted(values, cuts)
    sums = np.concatenate([[0.0], np.cumsum(values)])[below]
    total, n = values.sum(), len(values)

    def part(size: NDArray, amount: NDArray) -> NDArray:
        return np.divide(amount**2, size, out=np.zeros_like(amount), where=size > 0)

    low, high = np.triu_indices(len(cuts), 1)
    middle = part((below[high] - below[low]).astype(float), sums[high] - sums[low])
    between = (
        part(below[low].astype(float), sums[low]) + middle + part((n - below[high]).astype(float), total - sums[high])
    )
    return float(cuts[high[between.argmax()]])


def cut_of_property(scores: NDArray[np.float64]) -> float:
    """Where a measured property begins: between two humps of the scores, or where the tail of one hump begins.

    Two groups that explain TWO_HUMPS of the variance are two humps: of a normal distribution two halves explain 2/pi,
    of an even one 3/4.
    """
    values = scores[np.isfinite(scores)]
    cut = otsu(values)
    above = values >= cut
    if above.all() or not above.any():
        return cut
    between = above.mean() * (1 - above.mean()) * (values[above].mean() - values[~above].mean()) ** 2
    return cut if between >= TWO_HUMPS * values.var() else upper_of_two_cuts(values)


def property_presence(
    name: str,
    measured: dict[str, NDArray[np.float64]],
    similarity: dict[str, NDArray[np.float64]],
    selection: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """How much of a property each picture has: what is measured, and what the encoder makes of its name.

    The two in units of their standard deviations in the selection half, added: a measurement can't tell a cast from a
    scene of that colour, and words alone depend on the encoder. Without an encoder that knows words the measurement
    alone.
    """
    scores = np.asarray(property_score(name, measured), dtype=np.float64)
    if name not in similarity:
        return scores
    parts = [(x - x[selection].mean()) / s for x in (scores, similarity[name]) if (s := x[selection].std()) > 0]
    return np.sum(parts, axis=0) if parts else scores


def find_cues(
    images: pa.Table,
    attributes: pa.Table,
    detections: Parts,
    embeddings: Parts,
    clusters: pa.Table,
    assignments: Parts,
    *,
    selection: NDArray[np.bool_],
    has_detector: bool,
    encoder: RegionEncoder | None,
    cache: Place,
    count: Callable[[str, int], None],
    load: Callable[[pa.Table], list[RGB]] | None = None,
    seed: int = 0,
    answered: Mapping[str, Mapping[str, bool]] = NOTHING,
) -> Cues:
    """Every cue of the audit with its score and presence in each image, in a fixed order.

    `load` reads the pictures of some rows of `images`; without it cues of the whole image that are known in words
    only can't be tested. `answered` says of a cue's name (settled.name_of) and an image whether people see it there:
    their answers on the selection half set the cue's threshold, and stand in the place of its scores in either half.
    """
    image_ids: list[str] = images["image_id"].to_pylist()
    index = {image_id: number for number, image_id in enumerate(image_ids)}

    def settle(name: str, scores: NDArray, automatic: float, asked: NDArray[np.bool_] | None = None) -> float:
        """A cue's threshold: automatic, or by people's answers on images of the selection half (and of `asked`)."""
        seen = {index[image]: yes for image, yes in answered.get(name, {}).items() if image in index}
        at = [i for i in seen if selection[i] and (asked is None or asked[i])]
        return calibrated_cut(scores[at], np.array([seen[i] for i in at], dtype=bool), automatic)

    rows: list[dict] = []
    columns: list[NDArray[np.float64]] = []

    def add(
        cue_id: str,
        name: str,
        cue_type: str,
        kind: str,
        operator: str,
        source: str,
        scores: NDArray,
        cut: float,
        untestable: str = "",
        looks_like: str = "",
    ) -> None:
        rows.append(
            {
                "cue_id": cue_id,
                "name": name,
                "cue_type": cue_type,
                "kind": kind,
                "operator": operator,
                "source": source,
                "looks_like": looks_like,
                "threshold": cut,
                "untestable": untestable,
            }
        )
        columns.append(scores)

    words: dict[str, tuple[str, str]] = {}
    for phrase, cue_type, source in zip(
        *(attributes[c].to_pylist() for c in ("phrase", "cue_type", "source")), strict=True
    ):
        words.setdefault(phrase, (cue_type, source))
    # words for a measured property are that property: a measurement has an edit, words have none
    known = {phrase: found for phrase, found in words.items() if phrase not in PROPERTY_CUES}
    whole = [phrase for phrase, (cue_type, _) in sorted(known.items()) if not (cue_type in THINGS and has_detector)]
    things = [phrase for phrase, (cue_type, _) in sorted(known.items()) if cue_type in THINGS and has_detector]
    parts = (undisputed(part) for part in batches(detections, ["image_id", "phrase", "score", "box"]))
    best = dict(zip(things, best_scores(parts, index, things, cache).T, strict=True))
    similarity = whole_image_scores(embeddings, index, [*whole, *PROPERTY_CUES], encoder, cache, count)
    operators: dict[str, dict[str, dict]] = {}
    if load is not None and encoder is not None:
        typed = {phrase: known[phrase][0] for phrase in whole if known[phrase][0] in FITTING and phrase in similarity}
        operators = whole_image_operators(images, similarity, typed, selection, encoder, cache, count, load, seed)
    for phrase, (cue_type, source) in sorted(known.items()):
        if cue_type in THINGS and has_detector:
            scores = best[phrase]
            cut = float(np.clip(otsu(scores[selection]), *DETECTION_RANGE))
            cut = settle(phrase, scores, cut, scores > 0)  # no threshold finds what the detector didn't
            add(f"thing:{phrase}", phrase, cue_type, "named", "region", source, scores, cut)
        elif phrase in similarity:
            scores = similarity[phrase]
            if phrase in operators:
                operator, why = in_words(operators[phrase])
            elif cue_type == "Background" and has_detector:
                operator, why = "background", ""
            else:
                operator, why = "", untestable(cue_type)
            add(
                f"scene:{phrase}",
                phrase,
                cue_type,
                "named",
                operator,
                source,
                scores,
                settle(phrase, scores, otsu(scores[selection])),
                why,
            )
    measured = {name: images[name].to_numpy() for name in PROPERTIES}
    told = {name: property_presence(name, measured, similarity, selection) for name in PROPERTY_CUES}
    strongest = np.max([told[name] for name in sorted(TINTS)], axis=0)
    for name, cue in PROPERTY_CUES.items():
        scores = told[name]
        enough = property_score(name, measured) >= cue.least
        if name in TINTS:  # a picture has one tint, not its neighbours on the colour wheel too
            enough &= scores >= strongest
        threshold = settle(name, scores, cut_of_property(scores[selection]), enough)
        add(
            f"property:{name}",
            name,
            cue.cue_type,
            "named",
            f"property:{name}",
            words.get(name, ("", "measured"))[1],
            np.where(enough, scores, np.minimum(scores, np.nextafter(threshold, -np.inf))),
            threshold,
        )
    for row, scores in cluster_scores(clusters, assignments, index, cache):
        name = (
            f"regions like '{row['name']}' (cluster {row['cluster']})" if row["name"] else f"cluster {row['cluster']}"
        )
        add(
            f"cluster:{row['cluster']}",
            name,
            "Co-occurring Objects",
            "unnamed",
            "region",
            "clusters",
            scores,
            settle(f"cluster:{row['cluster']}", scores, row["threshold"], scores > -1),
            looks_like=row["name"] or "",
        )
    scores = scratch(len(index), len(rows), cache)
    present = np.empty(scores.shape, dtype=bool)
    for number, (row, column) in enumerate(zip(rows, columns, strict=True)):
        scores[:, number] = column
        present[:, number] = np.isfinite(column) & (column >= row["threshold"])
        for image_id, yes in answered.get(name_of(row), {}).items():
            if image_id in index:
                present[index[image_id], number] = yes
        release(column)
        release(scores)
    return Cues(rows, image_ids, scores, present)


def untestable(cue_type: str) -> str:
    """Why a cue of this type, known in words alone, has no edit that removes or inserts it."""
    if cue_type == "Background":
        return "a background is exchanged round the object, and no detector is configured to find the object"
    if cue_type in THINGS:
        return "things are taken out and put in by their boxes, and no detector is configured to find them"
    return f"no edit changes the {cue_type.lower()} of a picture without making a new picture"


def whole_image_operators(
    images: pa.Table,
    similarity: dict[str, NDArray[np.float64]],
    typed: dict[str, str],
    selection: NDArray[np.bool_],
    encoder: RegionEncoder,
    cache: Place,
    count: Callable[[str, int], None],
    load: Callable[[pa.Table], list[RGB]],
    seed: int,
) -> dict[str, dict[str, dict]]:
    """For each phrase of `typed` (phrase to cue type) the operator of each direction, by a manipulation check.

    All phrases share the images that are tried and their vectors.
    """
    if not typed or not selection.any():
        return {}
    scores = np.stack([similarity[phrase] for phrase in typed], axis=1)[selection]
    rows = images_to_try(scores, MOST_IMAGES, np.random.default_rng([seed, 31]))
    pictures = load(images.take(np.flatnonzero(selection)[rows]))
    tried = try_operators(
        pictures, sorted(set(typed.values())), lambda images: encode_once(images, encoder, cache, count)
    )
    words = phrase_directions(list(typed), encoder, cache, count)
    chosen: dict[str, dict[str, dict]] = {}
    for number, (phrase, cue_type) in enumerate(typed.items()):
        mine = scores[:, number]
        present = mine[rows] >= otsu(mine)
        chosen[phrase] = {
            direction: choose_operator(tried, words[number], present, float(mine.std()), cue_type, direction)
            for direction in ("removal", "insertion")
        }
    return chosen


def best_scores(
    detections: Iterable[pa.Table], index: dict[str, int], phrases: list[str], folder: Place
) -> NDArray[np.float64]:
    """(images, phrases): the best detection score of each phrase in each image, 0 where there is none.

    `detections` are parts of the table; see evidence/columns.py for `folder`.
    """
    best = scratch(len(index), len(phrases), folder, 0.0)
    at = {phrase: number for number, phrase in enumerate(phrases)}
    for part in detections:
        phrase, image = places(part["phrase"], at), places(part["image_id"], index)
        known = phrase >= 0
        np.maximum.at(best, (image[known], phrase[known]), part["score"].to_numpy()[known])
        release(best)
    return best


def whole_image_scores(
    embeddings: Parts,
    index: dict[str, int],
    phrases: list[str],
    encoder: RegionEncoder | None,
    cache: Place,
    count: Callable[[str, int], None],
) -> dict[str, NDArray[np.float64]]:
    """Cosine similarity of each image to each phrase (mean over templates) less that to neutral words."""
    if encoder is None or not encoder.has_text or not phrases or not length(embeddings):
        return {}
    directions = phrase_directions(phrases, encoder, cache, count).T
    scores = scratch(len(index), len(phrases), cache)
    for part in batches(embeddings, ["image_id", "embedding"]):
        scores[places(part["image_id"], index)] = matrix(part["embedding"]) @ directions
        release(scores)
    return dict(zip(phrases, scores.T, strict=True))


def phrase_directions(
    phrases: list[str], encoder: RegionEncoder, cache: Place, count: Callable[[str, int], None]
) -> Floats:
    """(phrases, d): an image's vector times one of these is its score for the phrase."""
    texts = [template.format(phrase) for phrase in phrases for template in TEMPLATES]
    encoded = text_embeddings(encoder, [*texts, *NEUTRAL], cache, count)
    per_phrase = encoded[: len(texts)].reshape(len(phrases), len(TEMPLATES), -1).mean(axis=1)
    per_phrase /= np.maximum(np.linalg.norm(per_phrase, axis=1, keepdims=True), 1e-12)
    return per_phrase - encoded[len(texts) :].mean(axis=0)


def cluster_scores(
    clusters: pa.Table, assignments: Parts, index: dict[str, int], folder: Place
) -> list[tuple[dict, NDArray[np.float64]]]:
    """For each cluster the similarity of each image's nearest member region, -1 where it has none."""
    rows = clusters.to_pylist()
    scores = scratch(len(index), len(rows), folder, -1.0)
    if rows:
        column = np.full(max(row["cluster"] for row in rows) + 2, -1)  # the last stays -1, of a cluster without a row
        column[[row["cluster"] for row in rows]] = np.arange(len(rows))
        for part in batches(assignments, ["image_id", "cluster", "similarity"]):
            number = column[np.minimum(part["cluster"].to_numpy(), len(column) - 1)]
            image, known = places(part["image_id"], index), number >= 0
            np.maximum.at(scores, (image[known], number[known]), part["similarity"].to_numpy()[known])
            release(scores)
    return list(zip(rows, scores.T, strict=True))


def phi(present: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Correlation of yes-or-no columns with each other (cues, cues); 0 for a constant column.

    From counts, which are exact whatever the order they are added in (float32 holds those of PHI_ROWS images).
    """
    n, both = len(present), np.zeros((present.shape[1],) * 2)
    for first in range(0, n, PHI_ROWS):
        part = present[first : first + PHI_ROWS].astype(np.float32)
        both += part.T @ part
    seen = both.diagonal()
    spread = np.sqrt(seen * (n - seen))
    scale = np.outer(spread, spread)
    return np.divide(n * both - np.outer(seen, seen), scale, out=np.zeros_like(both), where=scale > 0)

"""Checks of the data that would explain a finding, or make it look surer than it is: order, copies, balance,
properties that give the class away. docs/data-checks.md says what each means and what to do.

Rows of the table `checks`. A family of q-values is all tests of one check (one name in the column `check`).
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from pipeline.evidence import duplicates
from pipeline.metrics.intervals import group_means, minimum_detectable_effect
from pipeline.metrics.neighbours import NEIGHBOURS, Graph, neighbours, order_test, two_sample_test
from pipeline.metrics.separation import separation
from pipeline.metrics.tests import false_discovery
from pipeline.records import PROPERTIES, of_half, places

MOST_OF_CLASS = 2_000
MOST_IMAGES = 20_000
"""Neighbours are sought among at most so many images, of a class and in all: their search is quadratic."""
LEAST_OF_CLASS = 3 * NEIGHBOURS
"""With fewer images of a class, half of them are neighbours of each other whatever the order."""
LEAST_ESTIMATION = 20
RARE = 0.1
"""A class with less than this part of an even share is rare (cleanlab's ImbalanceIssueManager)."""
MEDIUM = 0.64
"""Area under the ROC curve from which a difference is called medium (Vargha and Delaney 2000, JEBS 25, 101-132)."""
NEAR = 0.13
"""Part of the median distance to the nearest neighbour below which two images are near-duplicates (cleanlab)."""
SHOWN = 4

WORDS: dict[str, tuple[str, str]] = {
    "brightness": ("brighter", "darker"),
    "contrast": ("of more contrast", "of less contrast"),
    "saturation": ("more vivid in colour", "paler in colour"),
    "tint_red": ("redder", "greener"),
    "tint_blue": ("bluer", "yellower"),
    "sharpness": ("sharper", "blurrier"),
    "noise": ("noisier", "less noisy"),
    "size": ("larger in pixels", "smaller in pixels"),
    "aspect": ("wider for their height", "taller for their width"),
}
"""A property's two directions, in words that complete "pictures of x are ...". """

Row = dict[str, Any]
Strata = list[NDArray[np.int64]]


def row(check: str, what: str, verdict: str, *, label: str = "", found: bool = False, n: int = 0, **more: Any) -> Row:
    """A row of `checks`; numbers that aren't given were not measured."""
    numbers = dict.fromkeys(("statistic", "lower", "upper", "p", "q"), float("nan"))
    given = {"check": check, "what": what, "label": label, "n": n, "found": found, "verdict": verdict, "examples": []}
    return given | numbers | more


def with_q(rows: list[Row]) -> list[Row]:
    """The rows with q-values (Benjamini-Hochberg), each check a family."""
    families: dict[str, list[Row]] = defaultdict(list)
    for one in rows:
        families[one["check"]].append(one)
    for family in families.values():
        for one, q in zip(family, false_discovery([one["p"] for one in family]), strict=True):
            one["q"] = float(q)
    return rows


def bounded(labels: list[str], rng: np.random.Generator) -> list[str]:
    """As many classes, drawn at random, as can be looked at with LEAST_OF_CLASS images each, in their order."""
    most = MOST_IMAGES // (2 * LEAST_OF_CLASS)
    if len(labels) <= most:
        return labels
    return [labels[place] for place in np.sort(rng.choice(len(labels), most, replace=False))]


def strata(members: Sequence[Sequence[int]], rng: np.random.Generator) -> tuple[Strata, str]:
    """The positions of each class (or of a class in each sample), sampled in their order where there are too many; and
    words that say so, or nothing."""
    most = min(MOST_OF_CLASS, MOST_IMAGES // max(len(members), 1))
    chosen, cut = [], False
    for positions in members:
        part = np.asarray(positions, dtype=np.int64)
        if len(part) > most:
            part, cut = np.sort(rng.choice(part, most, replace=False)), True
        chosen.append(part)
    total = sum(map(len, members))
    return chosen, f" Looked at in a sample of {sum(map(len, chosen)):,} of {total:,} images." if cut else ""


def one_a_group(images: pa.Table, classes: Sequence[str]) -> dict[str, list[int]]:
    """The positions of each class's images, the first of each near-duplicate group alone."""
    positions: dict[str, list[int]] = {label: [] for label in classes}
    seen: set[tuple[str, str]] = set()
    for place, key in enumerate(zip(images["label"].to_pylist(), images["group"].to_pylist(), strict=True)):
        if key not in seen and key[0] in positions:
            seen.add(key)
            positions[key[0]].append(place)
    return positions


# --- order ---


def order(
    images: pa.Table, vectors: NDArray[np.float32], classes: Sequence[str], seed: int
) -> tuple[list[Row], list[float]]:
    """Whether images near in the order of their class look alike; and the distances to nearest neighbours."""
    rng = np.random.default_rng([seed, 31])
    by_class = one_a_group(images, classes)
    labels = [label for label in classes if len(by_class[label]) >= LEAST_OF_CLASS]
    if not labels:
        few = f"No class has {LEAST_OF_CLASS} images that are no copies: too few to tell."
        return [row("order", "neighbours", few, n=len(images))], []
    left = len(classes) - len(labels)
    enough, labels = len(labels), bounded(labels, rng)
    chosen, said = strata([by_class[label] for label in labels], rng)
    graphs = [neighbours(vectors[part]) for part in chosen]
    test = order_test(graphs, rng)
    said += f" Looked at in {len(labels):,} of {enough:,} classes." if len(labels) < enough else ""
    said += f" Classes with fewer than {LEAST_OF_CLASS} images were left out: {left}." if left else ""
    ids = images["image_id"].to_pylist()
    places = [_places(graph) for graph in graphs]
    share = float(np.average([near for near, _ in places], weights=[len(graph.near) for graph in graphs]))
    rows = [
        row(
            "order",
            "neighbours",
            f"{_order_words('a class', share)}{said}",
            statistic=test.pooled_statistic,
            p=test.pooled_p,
            n=sum(map(len, chosen)),
        )
    ]
    for label, part, p, statistic, (near, closest) in zip(labels, chosen, test.p, test.statistic, places, strict=True):
        rows.append(
            row(
                "order",
                "neighbours",
                _order_words(f"“{label}”", near),
                label=label,
                statistic=float(statistic),
                p=float(p),
                n=len(part),
                examples=[ids[part[place]] for place in closest],
            )
        )
    return rows, np.concatenate([graph.distance[:, 0] for graph in graphs]).tolist()


def _places(graph: Graph) -> tuple[float, list[int]]:
    """The median distance in the order to a neighbour, as a share of the length; and a run of images that are alike."""
    apart = np.abs(np.arange(len(graph.near))[:, None] - graph.near)
    middle = int(np.sort(apart, axis=1)[:, : SHOWN - 1].mean(axis=1).argmin())
    nearest = graph.near[middle][np.argsort(apart[middle], kind="stable")[: SHOWN - 1]]
    return float(np.median(apart)) / len(graph.near), sorted([middle, *nearest.tolist()])


def _order_words(where: str, near: float) -> str:
    expected = 1 - np.sqrt(0.5)  # the median distance of two random places of a line of length 1
    return (
        f"Half of the look-alikes of an image of {where} stand within {100 * near:.0f} % of the list from it; "
        f"in a list without order, within {100 * expected:.0f} %."
    )


# --- copies ---


def copies(
    images: pa.Table,
    quarantine: pa.Table,
    vectors: NDArray[np.float32] | None,
    distances: Sequence[float],
    split: bool,
) -> list[Row]:
    """Exact copies, from the quarantine; near-duplicates across classes, across halves, and within a class."""
    n = len(images)
    same, conflicts = duplicates.exact(quarantine.to_pylist())
    group = images["group"].combine_chunks().dictionary_encode()
    of_group = group.indices.to_numpy()
    shared = np.bincount(of_group)[of_group] > 1  # of the others no row need be a Python object
    alike = images.select(["image_id", "path", "label", "group"]).filter(pa.array(shared)).to_pylist()
    groups = duplicates.conflicting(alike)
    some = ", ".join(conflicts[:3])
    given = not pa.compute.all(pa.compute.match_substring_regex(group.dictionary, duplicates.HASH.pattern)).as_py()
    found = [
        row(
            "copies",
            "exact, under other labels",
            f"{len(conflicts)} files are copies of a picture that has other labels too, so all of them were left out: "
            f"{some}{', ...' if len(conflicts) > 3 else ''}."
            if conflicts
            else "No picture stands under two labels.",
            found=bool(conflicts),
            statistic=len(conflicts),
            n=n + len(same) + len(conflicts),
        ),
        row(
            "copies",
            "exact",
            f"{len(same)} files are copies of another of the same class; one of each was kept."
            if same
            else "No file is there twice.",
            statistic=len(same),
            n=n + len(same) + len(conflicts),
        ),
        row(
            "copies",
            "near, under other labels",
            f"{len(groups)} pictures are there under different labels in nearly the same form: one of the labels is "
            "wrong, or the picture has both."
            if groups
            else "No two pictures that are nearly the same have different labels"
            + (", where the data give no group of their own." if given else "."),
            found=bool(groups),
            statistic=len(groups),
            n=n,
            examples=[one["image_id"] for group in groups for one in group[:2]][:SHOWN],
        ),
        _within(images, of_group),
    ]
    return [*found, *([_across_halves(images, of_group, vectors, distances)] if split else [])]


def _within(images: pa.Table, of_group: NDArray[np.int64]) -> Row:
    paths = images["path"].combine_chunks().dictionary_encode().indices.to_numpy()
    _, places = np.unique(paths, return_index=True)  # a picture of several labels has a row each
    groups, sizes = np.unique(of_group[places], return_counts=True)
    more = len(places) - len(groups)
    largest = places[of_group[places] == groups[sizes.argmax()]] if len(groups) else places
    return row(
        "copies",
        "near",
        f"{len(places):,} pictures make {len(groups):,} groups: {more:,} are near-duplicates of another. A group "
        "counts once in every number, and is never parted between the halves."
        if more
        else "No picture is a near-duplicate of another.",
        statistic=more / max(len(places), 1),
        n=len(places),
        examples=images["image_id"].take(largest[:SHOWN]).to_pylist() if more else [],
    )


def _across_halves(
    images: pa.Table, of_group: NDArray[np.int64], vectors: NDArray[np.float32] | None, distances: Sequence[float]
) -> Row:
    """Near-duplicates that the split parted: a group in both halves (the data gave the split), or nearly equal hashes.

    Nearly equal hashes count where the embeddings agree: plain pictures have much the same hash.
    """
    split = images["split"].combine_chunks().dictionary_encode()
    halves = split.dictionary.to_pylist()
    of_half = split.indices.to_numpy()
    _, first = np.unique(of_group.astype(np.int64) * len(halves) + of_half, return_index=True)  # of a group in a half
    first.sort()
    groups = images["group"].take(first).to_pylist()
    at: dict[str, dict[str, int]] = defaultdict(dict)
    for number in np.flatnonzero(np.bincount(of_group[first])[of_group[first]] > 1).tolist():
        at[groups[number]][halves[of_half[first[number]]]] = int(first[number])
    parted = [at[group] for group in sorted(at) if {"selection", "estimation"} <= at[group].keys()]
    pairs = [(places["selection"], places["estimation"]) for places in parted]
    near = [(int(first[a]), int(first[b])) for a, b, _ in duplicates.near_pairs(groups)]
    near = [(a, b) for a, b in near if of_half[a] != of_half[b]]
    how = "by their hashes"
    if near and vectors is not None and len(distances):
        apart = duplicates.cosine_distance(vectors, [a for a, _ in near], [b for _, b in near])
        close = apart < NEAR * float(np.median(distances))
        near, how = [pair for pair, is_near in zip(near, close, strict=True) if is_near], "by hash and embedding"
    pairs += near
    return row(
        "copies",
        "near, in both halves",
        f"{len(pairs):,} pairs of near-duplicates stand in different halves ({how}): what was chosen on one half is "
        "tested on pictures that are not quite new."
        if pairs
        else "No near-duplicates stand in different halves.",
        found=len(pairs) > len(images) / 200,  # one image in a hundred changes no estimate by more than a point
        statistic=len(pairs),
        n=len(images),
        examples=[images["image_id"][place].as_py() for pair in pairs[:SHOWN] for place in pair][:SHOWN],
    )


# --- balance ---


def balance(images: pa.Table, classes: Sequence[str], split: bool) -> list[Row]:
    """Rare classes, and what the number of a class's images lets one see."""
    units: dict[tuple[str, str], set[str]] = defaultdict(set)
    for label, half, group in zip(*(images[name].to_pylist() for name in ("label", "split", "group")), strict=True):
        units[label, half if split else "estimation"].add(group)
    estimation = {label: len(units[label, "estimation"]) for label in classes}
    whole = {label: len(units[label, "estimation"] | units[label, "selection"]) for label in classes}
    total, rarest = sum(whole.values()), min(classes, key=lambda label: (whole[label], label))
    largest, smallest = max(whole.values()), whole[rarest]
    rare = smallest < RARE * total / len(classes)
    said = (
        f"The largest class has {largest:,} images and the smallest, “{rarest}”, {smallest:,} (near-duplicates once)."
        if largest > smallest
        else f"Every class has {largest:,} images."
    )
    if rare:
        said += " The smallest has less than a tenth of an even share: a model can ignore it and hardly be the worse."
    ratio = largest / max(smallest, 1)
    rows = [row("balance", "classes", said, found=rare, statistic=ratio, n=len(images))]
    visible = minimum_detectable_effect(np.array(list(estimation.values())), share=0.5)
    for (label, count), effect in zip(estimation.items(), visible, strict=True):
        least = f"an effect below {100 * min(effect, 1):.0f} of 100" if count else "any effect"
        said = f"“{label}” has {count:,} images to be measured on: {least} may go unseen (80 % power, at worst)."
        few = count < LEAST_ESTIMATION
        rows.append(row("balance", "images", said, label=label, found=few, statistic=count, n=whole[label]))
    return rows


def halves(
    images: pa.Table, vectors: NDArray[np.float32] | None, classes: Sequence[str], seed: int, level: float
) -> list[Row]:
    """Whether the two halves differ, in the mix of classes and in looks: asked only of a split that the data give."""
    second = of_half(images, "estimation")
    by_class = one_a_group(images, classes)
    counts = np.array([[(~second[at]).sum(), second[at].sum()] for at in map(np.array, by_class.values()) if len(at)])
    rows = [mix_row("halves", counts, level, "The two halves that the data give")]
    if vectors is not None:
        rows += looks_rows("halves", vectors, by_class, second, seed, level, ("estimation", "selection"))
    return rows


# --- two samples, also of two audits ---


def mix_row(check: str, counts: NDArray[np.int64], level: float, subject: str) -> Row:
    """Whether two samples (columns) have the same mix of classes (rows): a G test, and Cramér's V."""
    from scipy import stats  # here, for its import takes longer than most commands

    counts = counts[counts.sum(1) > 0]
    enough = len(counts) > 1 and (counts.sum(0) > 0).all()
    if not enough:
        return row(check, "mix of classes", "Too few images or classes to compare.", n=int(counts.sum()))
    test = stats.chi2_contingency(counts, correction=False, lambda_="log-likelihood")
    v = float(np.sqrt(stats.chi2_contingency(counts, correction=False).statistic / counts.sum()))
    differs = bool(test.pvalue < level and v >= 0.1)  # Cohen 1988: small from 0.1 on
    return row(
        check,
        "mix of classes",
        f"{subject} {'have another' if differs else 'have about the same'} mix of classes (Cramér's V {v:.2f}).",
        found=differs,
        statistic=float(test.statistic),
        p=float(test.pvalue),
        n=int(counts.sum()),
    )


def looks_rows(
    check: str,
    vectors: NDArray[np.float32],
    by_class: dict[str, list[int]],
    second: NDArray[np.bool_],
    seed: int,
    level: float,
    names: tuple[str, str],
) -> list[Row]:
    """Whether two samples of embeddings differ within the classes: all together, then class by class."""
    rng = np.random.default_rng([seed, 37])
    parts = {label: ([i for i in at if second[i]], [i for i in at if not second[i]]) for label, at in by_class.items()}
    labels = [label for label, (mine, others) in parts.items() if len(mine) > 1 and len(others) > 1]
    if not labels:
        return [row(check, "looks", "No class has images of both to compare.")]
    enough, labels = len(labels), bounded(labels, rng)
    chosen, said = strata([side for label in labels for side in parts[label]], rng)
    said += f" Looked at in {len(labels):,} of {enough:,} classes." if len(labels) < enough else ""
    blocks = [np.concatenate(pair) for pair in zip(chosen[::2], chosen[1::2], strict=True)]
    graphs = [neighbours(vectors[block]) for block in blocks]
    test = two_sample_test(graphs, [second[block] for block in blocks], rng)

    def words(where: str, same: float, expected: float) -> str:
        return (
            f"Of 100 look-alikes of an image of {where} in the {names[0]}, {100 * same:.0f} are in the {names[0]} too; "
            f"{100 * expected:.0f} if these and the {names[1]} did not differ."
        )

    rows = [
        row(
            check,
            "looks",
            words("a class", test.pooled_same, test.pooled_expected) + said,
            statistic=test.pooled_same - test.pooled_expected,
            p=test.pooled_p,
            n=sum(map(len, blocks)),
        )
    ]
    for label, block, same, expected, p in zip(labels, blocks, test.same, test.expected, test.p, strict=True):
        one = words(f"“{label}”", same, expected)
        rows.append(row(check, "looks", one, label=label, statistic=same - expected, p=float(p), n=len(block)))
    return rows


def found_by_q(rows: list[Row], whats: Sequence[str], level: float) -> list[Row]:
    """Mark as found what has a q-value below the level, of tests whose significance alone counts."""
    for one in rows:
        if one["what"] in whats and one["p"] == one["p"]:
            one["found"] = bool(one["q"] < level)
            if not one["found"]:
                one["examples"] = []
    return rows


# --- properties ---


def measured(images: pa.Table) -> dict[str, NDArray[np.float64]]:
    """Properties by name: those of ingest, size and aspect (log2), and the common file formats (1 or 0)."""
    width, height = (images[name].to_numpy().astype(float) for name in ("width", "height"))
    columns = {name: images[name].to_numpy().astype(float) for name in PROPERTIES}
    columns |= {"size": np.log2(width * height) / 2, "aspect": np.log2(width / height)}
    suffixes = [PurePosixPath(path).suffix.lower() for path in images["path"].to_pylist()]
    common = Counter(suffix for suffix in suffixes if suffix).most_common(5)
    if len(common) > 1:
        columns |= {f"format {name}": np.array([one == name for one in suffixes], float) for name, _ in common}
    return columns


def properties(images: pa.Table, classes: Sequence[str]) -> list[Row]:
    """Whether a property of the picture gives its class away: each property, each class against all others."""
    of_class = places(images["label"], {name: number for number, name in enumerate(classes)})
    known = of_class >= 0
    group = images["group"].combine_chunks().dictionary_encode()
    in_alphabet = np.empty(len(group.dictionary), dtype=np.int64)
    in_alphabet[pa.compute.sort_indices(group.dictionary).to_numpy()] = np.arange(len(group.dictionary))
    own_group = (of_class * len(in_alphabet) + in_alphabet[group.indices.to_numpy()])[known]  # of a class
    keys, first = np.unique(own_group, return_index=True)
    member = keys // max(len(in_alphabet), 1)
    shown = images["image_id"].take(pa.array(np.flatnonzero(known)[first]))
    rows: list[Row] = []
    for name, values in measured(images).items():
        values = group_means(values[known], own_group)
        if np.ptp(values) == 0:
            rows.append(row("properties", name, "It is the same in all images.", n=len(values)))
            continue
        apart = separation(values, member, len(classes))
        ascending = np.argsort(values, kind="stable")
        own = np.split(
            ascending[np.argsort(member[ascending], kind="stable")],
            np.cumsum(np.bincount(member, minlength=len(classes)))[:-1],
        )
        for number, name_of_class in enumerate(classes):
            area = float(apart.area[number])
            ends = shown.take(_ends(own[number], ascending, member, area >= 0.5)).to_pylist() if area == area else []
            rows.append(
                row(
                    "properties",
                    name,
                    "",
                    label=name_of_class,
                    statistic=area,
                    lower=float(apart.lower[number]),
                    upper=float(apart.upper[number]),
                    p=float(apart.p[number]),
                    n=int(apart.n[number]),
                    examples=ends,
                )
            )
    return rows


def settle_properties(rows: list[Row], level: float) -> list[Row]:
    """Mark as found what has a q-value below the level and is at least a medium difference, by the interval's bound."""
    for one in rows:
        if one["check"] != "properties" or one["p"] != one["p"]:
            continue
        settle_area(one, level, "Pictures of", "the others")
    return rows


def settle_area(one: Row, level: float, subject: str, others: str) -> None:
    """Write the verdict of a row whose statistic is an area under the ROC curve, once its q-value is known."""
    area, bound = one["statistic"], max(one["lower"], 1 - one["upper"])
    one["found"] = bool(one["q"] < level and bound >= MEDIUM)
    up = area >= 0.5
    more, less = WORDS.get(one["what"]) or (
        f"more often {one['what'][7:]} files",
        f"less often {one['what'][7:]} files",
    )
    low, high = (one["lower"], one["upper"]) if up else (1 - one["upper"], 1 - one["lower"])
    pairs = f"in {100 * max(area, 1 - area):.0f} of 100 pairs of one of each ({100 * low:.0f} to {100 * high:.0f})"
    name = f"{subject} “{one['label']}”"
    if one["found"]:
        one["verdict"] = f"{name} are {more if up else less} than {others}, {pairs}; by chance it would be 50."
        return
    one["examples"] = []
    if one["q"] < level:
        one["verdict"] = f"{name} are a little {more if up else less} than {others}, {pairs}."
    else:
        one["verdict"] = f"{name} differ from {others} by no more than chance, {pairs}."


def _ends(own: NDArray[np.int64], ascending: NDArray[np.int64], member: NDArray[np.int64], up: bool) -> list[int]:
    """The class's images at the end where it lies, and the others at the opposite one.

    Args:
        own, ascending: positions of the class's images and of all, by rising value.
        up: whether the class has more of the property than the others.
    """
    half = SHOWN // 2
    mine, others = (own[::-1], ascending) if up else (own, ascending[::-1])
    label = member[own[0]] if len(own) else -1
    opposite = itertools.islice((place for place in others if member[place] != label), half)
    return [*mine[:half].tolist(), *map(int, opposite)]

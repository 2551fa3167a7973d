"""ingest: the data source as a table of readable, labelled, distinct images, split once into two halves."""

from __future__ import annotations

import array
import hashlib
import itertools
import pickle
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from pipeline.config import Audit
from pipeline.errors import UserError, nearest
from pipeline.geometry import area, as_boxes
from pipeline.models.annotations import reads_annotations
from pipeline.places import Place
from pipeline.records import table
from pipeline.sources.items import Item, passed_over
from pipeline.sources.looking import looked_at
from pipeline.store import key_of

VERSION = 1
ROWS_AS_OBJECTS = 2048


def ingest(
    *,
    audit: Audit,
    source: Any,
    captioner: Any,
    detector: Any,
    cache: Place,
    before: pa.Table | None = None,
    skip: Callable[[str, str], None],
    count: Callable[[str, int], None],
    progress: Callable[[int, int], None],
) -> dict[str, pa.Table]:
    """Look at every image once: identity by content, upright RGB, measured properties, near-duplicate group, half.

    Every file is accounted for: `count` hears how many the source gave, and of them how many pictures are audited and
    how many are of other classes alone; the rest are quarantined. What isn't named as an image at all is in `skip`.

    Returns:
        `images`, in the order of the source (an image of several labels once for each); `annotations`, what the
        data set itself says of them; and `quarantine` with a reason a file. A picture found twice under the same
        labels is kept once; under others it is quarantined, for no label of it can be trusted.

    Raises:
        UserError: no image is left, a class asked for has none, one half is empty, or captions or boxes are to come
            from data that have none.
    """
    kept: dict[bytes, int] = {}  # content to the number of the picture
    rows_of = array.array("q", [0])  # up to which row of `images` each picture's go
    labels_of: list[tuple[str, ...]] = []
    alike: dict[tuple[str, ...], tuple[str, ...]] = {}  # labels are the same objects for all pictures that have them
    twice: dict[int, set[str]] = {}
    given: dict[str, set[str]] = {}
    gathered, annotations = Gathered("images"), Gathered("annotations")
    named: Counter[str] = Counter()
    quarantine: list[dict[str, str]] = []
    lost = others_only = 0
    total, waiting = held(source)

    def asked_for(item: Item) -> bool:
        return not item.fault and (not audit.classes or any(label in audit.classes for label in item.labels))

    looked = looked_at(waiting, source, asked_for, cache, audit.reread)
    for number, (item, seen) in enumerate(looked, 1):
        named.update(item.labels)
        labels = [label for label in item.labels if not audit.classes or label in audit.classes]
        if item.fault or isinstance(seen, str):
            quarantine.append({"path": item.path, "reason": item.fault or str(seen)})
            continue
        if seen is None:
            others_only += 1
            continue
        content = seen.content
        identity = bytes.fromhex(content)
        if (picture := kept.get(identity)) is not None:
            first, its = gathered.at(rows_of[picture], "path"), labels_of[picture]
            if set(its) == set(item.labels):
                reason = f"the same picture as {first}"
            else:
                twice.setdefault(picture, set(its)).update(item.labels)
                reason = f"the same picture as {first}, under another label"
            quarantine.append({"path": item.path, "reason": reason})
            continue
        group = item.group or seen.look
        if item.split:
            given.setdefault(group, set()).add(item.split)
        phrases, boxes = _boxes(item, audit, seen.width, seen.height)
        lost += len(item.boxes) - len(boxes)
        for label in labels:
            others = [other for other in labels if other != label]
            said = {"caption": item.caption, "phrases": phrases, "boxes": boxes, "other_labels": others}
            image_id = key_of(content, said, label if others else "") if any(said.values()) else content
            gathered.add(
                {
                    "image_id": image_id,
                    "path": item.path,
                    "label": label,
                    "split": item.split,
                    "group": group,
                    "width": seen.width,
                    "height": seen.height,
                    **seen.measured,
                }
            )
            if any(said.values()):
                annotations.add({"image_id": image_id, **said})
        kept[identity] = len(labels_of)
        its = tuple(item.labels)
        labels_of.append(alike.setdefault(its, its))
        rows_of.append(len(gathered))
        progress(number, total)
    stays = np.ones(len(gathered), dtype=bool)
    for picture, labels_of_it in twice.items():
        reason = f"the same picture under the labels {', '.join(sorted(labels_of_it))}"
        quarantine.append({"path": gathered.at(rows_of[picture], "path"), "reason": reason})
        stays[rows_of[picture] : rows_of[picture + 1]] = False
    pictures = len(kept) - len(twice)
    del kept, rows_of, labels_of
    images = gathered.table().filter(pa.array(stays))
    columns = zip(images["split"].to_pylist(), images["group"].to_pylist(), strict=True)
    # a group is never parted, unless the data say so
    halves = [split or min(given.get(group, {half(group, audit.seed)})) for split, group in columns]
    if before is not None and not audit.no_split:
        later = later_ones(images["image_id"].to_pylist(), halves, before, audit.renew)
        if later:
            halves = ["set aside" if number in later else split for number, split in enumerate(halves)]
            skip(
                f"{len(later)} new images of the selection half",
                "cues are those that the audit before chose, so that the two can be compared; they are chosen anew "
                f"when the half has grown by {audit.renew:.0%} (renew)",
            )
    place = images.column_names.index("split")
    images = images.set_column(place, images.schema.field(place), pa.array(halves, images.schema.field(place).type))
    count("given", total)
    count("pictures", pictures)
    count("other_classes", others_only)
    for why, number in sorted(passed_over(source).items()):
        skip(f"{number:,} {'file' if number == 1 else 'files'} of the data", why)
    said_of = annotations.table()
    said_of = said_of.filter(pa.compute.is_in(said_of["image_id"], value_set=images["image_id"].combine_chunks()))
    _check_classes(audit, images, named, quarantine)
    _check_given(audit, images, said_of, given, captioner, detector, skip)
    if lost:
        skip(f"{lost} boxes of the data", "they are empty, outside their picture, or drawn on it before it was turned")
    return {
        "images": images,
        "quarantine": table("quarantine", quarantine),
        "annotations": said_of,
    }


class Gathered:
    """Rows of a table, of which only the last are held as Python's own objects: those take ten times the memory."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._parts = [table(name, [])]
        self._rows: list[dict[str, Any]] = []
        self._closed = 0

    def __len__(self) -> int:
        return self._closed + len(self._rows)

    def add(self, row: dict[str, Any]) -> None:
        """One more row."""
        self._rows.append(row)
        if len(self._rows) == ROWS_AS_OBJECTS:
            self._close()

    def at(self, row: int, column: str) -> Any:
        """One cell."""
        if row >= self._closed:
            return self._rows[row - self._closed][column]
        return self._parts[1 + row // ROWS_AS_OBJECTS][column][row % ROWS_AS_OBJECTS].as_py()

    def _close(self) -> None:
        self._closed += len(self._rows)
        self._parts.append(table(self._name, self._rows))
        self._rows = []

    def table(self) -> pa.Table:
        """All rows so far."""
        self._close()
        return pa.concat_tables(self._parts)


def held(source: Iterable[Item]) -> tuple[int, Iterator[Item]]:
    """How many items a source gives, and the items. Until they are asked for they are held pickled, which takes a
    fifth of the memory; giving them again instead may cost a pass over the network."""
    total, parts = 0, deque[bytes]()
    items = iter(source)
    while part := list(itertools.islice(items, ROWS_AS_OBJECTS)):
        total += len(part)
        parts.append(zlib.compress(pickle.dumps(part, pickle.HIGHEST_PROTOCOL), 1))

    def given() -> Iterator[Item]:
        while parts:
            yield from pickle.loads(zlib.decompress(parts.popleft()))  # made above, from nobody else

    return total, given()


def later_ones(ids: Sequence[str], halves: Sequence[str], before: pa.Table, renew: float) -> set[int]:
    """The places of images of the selection half that it hasn't held in the audit before, or none if cues are to be
    chosen anew.

    Cues, thresholds and what is worth an experiment are chosen on the selection half. While it stays as it is, they
    do, and everything that depends on them: new images cost themselves alone, and a finding that changes is no matter
    of another choice. Estimates lose nothing: as many of the new images as ever lie in the other half.

    Args:
        ids, halves: of each image.
        before: `images` of the audit before.
        renew: the share of the old half that may come or go.
    """
    columns = zip(before["image_id"].to_pylist(), before["split"].to_pylist(), strict=True)
    old = {image_id for image_id, split in columns if split == "selection"}
    mine = [number for number, split in enumerate(halves) if split == "selection"]
    new = {number for number in mine if ids[number] not in old}
    gone = len(old) - (len(mine) - len(new))
    return new if len(new) <= renew * len(old) and gone <= renew * len(old) else set()


def _boxes(item: Item, audit: Audit, width: int, height: int) -> tuple[list[str], list[list[float]]]:
    """The item's boxes that can be used, normalised, and what is in them, by the words of the class if it is one."""
    frame = item.frame or (width, height)
    if frame == (height, width) and width != height:
        return [], []  # drawn on the picture as it is stored, before its EXIF orientation
    shares = np.array([box for _, box in item.boxes]).reshape(-1, 4) / np.tile(frame, 2)
    boxes = as_boxes(shares)
    usable = np.flatnonzero(area(boxes) > 0)
    return [audit.words(item.boxes[number][0]) for number in usable], boxes[usable].tolist()


def half(group: str, seed: int) -> str:
    """Selection or estimation, by hash: the same for every copy, whatever else is in the data set."""
    digest = hashlib.blake2b(f"{seed}:{group}".encode(), digest_size=1).digest()
    return "selection" if digest[0] < 128 else "estimation"


def _check_classes(audit: Audit, images: pa.Table, found: Counter[str], quarantine: list[dict[str, str]]) -> None:
    counts = Counter(images["label"].to_pylist())
    reasons = Counter(row["reason"] for row in quarantine).most_common(1)
    why = f" Most often: {reasons[0][0]}." if reasons else ""
    for name in audit.classes:
        if not counts[name]:
            lost = (
                f"All its files ({found[name]}) were quarantined.{why} Mend or remove them, or name the classes to "
                "audit in 'classes'."
            )
            raise UserError(
                f"data: the class '{name}' has no images. {lost if name in found else nearest(name, found)}"
            )
    if not counts:
        raise UserError(f"data: no image could be read; {len(quarantine)} files were quarantined.{why}")
    if len(counts) < 2:
        only = next(iter(counts))
        raise UserError(
            f"data: there is only one class with images that can be read, '{only}' ({len(quarantine)} files were "
            f"quarantined). A cue of a class shows against other classes: give images of another one.{why}"
        )


def _check_given(
    audit: Audit,
    images: pa.Table,
    annotations: pa.Table,
    given: dict[str, set[str]],
    captioner: Any,
    detector: Any,
    skip: Callable[[str, str], None],
) -> None:
    """What the data are to give must be there: both halves, captions, boxes; what is missing in part is reported."""
    halves = set(images["split"].to_pylist())
    if given and len(halves) < 2 and not audit.no_split:
        raise UserError(
            f"data: the data put every image in the {halves.pop()} half. Give both halves (data.splits says which "
            "value is which), leave the split away, or set no_split: true."
        )
    if parted := sum(len(splits) > 1 for splits in given.values()):
        skip(f"one half for {parted} groups of near-duplicates", "the split that the data give parts them")
    for section, what, back_end in (("caption", "captions", captioner), ("detect", "boxes", detector)):
        if not reads_annotations(back_end):
            continue
        said = [pa.compute.greater(_length(annotations[column]), 0).to_numpy() for column in back_end.reads]
        has = int(np.any(said, axis=0).sum())
        if not has:
            raise UserError(
                f"{section}: the back end '{getattr(audit, section).kind}' takes {what} from the data, "
                "and no image has any. Map their column (data.columns), or choose another back end."
            )
        if section == "caption" and has < len(images):  # an image without a box may hold nothing
            skip(f"captions of {len(images) - has} images", "the data give them none")


def _length(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Of each text or list of a column."""
    measure = pa.compute.utf8_length if pa.types.is_string(column.type) else pa.compute.list_value_length
    return measure(column)

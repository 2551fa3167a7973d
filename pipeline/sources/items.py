"""What a data source says of an image, and how the columns of a table say it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from pipeline.errors import UserError, nearest, plain

BoxFormat = Literal["xyxy", "xywh", "cxcywh"]
BoxUnit = Literal["pixel", "share"]
Box = tuple[float, float, float, float]

SPLITS = {
    "selection": "selection",
    "estimation": "estimation",
    **dict.fromkeys(("train", "training"), "selection"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "test", "testing"), "estimation"),
}
"""What the usual names of a data set's parts mean to an audit: cues are chosen on one half, judged on the other."""

ROLES: dict[str, tuple[str, ...]] = {
    "image": ("image", "path", "file_name", "filename"),
    "label": ("label", "labels", "class", "category", "cls"),
    "split": ("split",),
    "caption": ("caption", "txt"),
    "boxes": ("boxes", "objects"),
    "box_labels": ("box_labels",),
    "masks": ("masks",),
    "group": ("group",),
}
"""What a column may hold, and the names it is known by where `columns` doesn't map it."""


@dataclass(frozen=True)
class Item:
    """One image of a data source.

    Args:
        path: by which the source reads it again; relative to the source's root where it has one.
        labels: none only where there is a fault. An image with several is audited once for each.
        split: selection or estimation where the data say so. group: images of one group stay in one half and
            count once. caption: empty where the data give none.
        boxes: things in the image, each (phrase, (x0, y0, x1, y1)), in pixels of a picture of size `frame`; None
            stands for the picture's own size, and (1, 1) for shares.
        fault: why the image can't be used, or empty.

    An item that tables, pages and terminals couldn't hold becomes one with a fault: text that is no Unicode (a name
    in another encoding), or labels, captions and names of boxes beyond any use.
    """

    path: str
    labels: tuple[str, ...]
    split: str = ""
    group: str = ""
    caption: str = ""
    boxes: tuple[tuple[str, Box], ...] = ()
    frame: tuple[float, float] | None = None
    fault: str = ""

    def __post_init__(self) -> None:
        texts = (self.path, *self.labels, self.group, self.caption, *(phrase for phrase, _ in self.boxes), self.fault)
        if not all(map(is_text, texts)):
            self._refuse(self.fault or "its name, or what the data say of it, is not in UTF-8: write it anew in UTF-8")
        for what, most, given in (
            ("label", LONGEST_LABEL, self.labels),
            ("caption", LONGEST_CAPTION, (self.caption,)),
            ("name of a box", LONGEST_LABEL, (phrase for phrase, _ in self.boxes)),
        ):
            if any(len(text) > most for text in given):
                self._refuse(f"its {what} is longer than {most:,} characters")

    def _refuse(self, why: str) -> None:
        for name, value in (("path", as_text(self.path)), ("fault", as_text(why)), ("caption", ""), ("group", "")):
            object.__setattr__(self, name, value)
        for name in ("labels", "boxes"):
            object.__setattr__(self, name, ())


LONGEST_LABEL, LONGEST_CAPTION = 500, 20_000


def is_text(value: str) -> bool:
    """Whether a string is Unicode that can be written: no half of a surrogate pair, as which Python keeps the bytes
    of a name that isn't UTF-8."""
    return value.isascii() or not any("\ud800" <= c <= "\udfff" for c in value)


def as_text(value: str) -> str:
    """The same with what can't be written as its escapes."""
    return value if is_text(value) else plain(value)


class Source(Protocol):
    """A data set. Making one is cheap; `root` is the folder or URL of the images, or empty where there is none."""

    root: Any

    def __iter__(self) -> Iterator[Item]:
        """Every image, always in the same order, without reading it."""
        ...

    def read(self, path: str) -> bytes:
        """The bytes of an item's image; raises OSError with a reason for the quarantine table."""
        ...


def stamp_of(source: Source, path: str) -> str:
    """What changes when the bytes of an image do, without reading them; empty where the source can't tell."""
    stamp = getattr(source, "stamp", None)
    return stamp(path) if stamp else ""


def passed_over(source: Source) -> Mapping[str, int]:
    """What lies in a data set and is no item of it, for it isn't named as an image: how many files, by the reason."""
    return getattr(source, "passed_over", None) or {}


class Fault(ValueError):
    """A row that can't be used; the message is the reason, for the quarantine table."""


@dataclass(frozen=True)
class Columns:
    """How rows become items: `roles` maps what a column holds to its name.

    Args:
        class_names: what labels in numbers stand for; where it is given, another label is a fault.
        separator: what stands between the labels of one cell of text.
        splits: value of the split column to `selection` or `estimation`.
    """

    roles: Mapping[str, str]
    class_names: Sequence[str] = ()
    separator: str | None = None
    box_format: BoxFormat = "xyxy"
    box_unit: BoxUnit = "pixel"
    splits: Mapping[str, str] = field(default_factory=lambda: SPLITS)

    def item(self, path: str, row: Mapping[str, Any]) -> Item:
        """A row as an item; one that can't be used says why in its `fault`."""
        cells = {role: row.get(column) for role, column in self.roles.items()}
        try:
            labels = self._labels(cells.get("label"))
            return Item(
                path,
                labels,
                split=self._split(cells.get("split")),
                group=text_of(cells.get("group")),
                caption=caption_of(cells.get("caption")),
                boxes=self._boxes(cells, labels),
                frame=(1.0, 1.0) if self.box_unit == "share" else None,
            )
        except Fault as fault:
            return Item(path, (), fault=str(fault))

    def _labels(self, cell: Any) -> tuple[str, ...]:
        if isinstance(cell, str) and self.separator:
            cell = cell.split(self.separator)
        if any(isinstance(value, Mapping | bytes) for value in _listed(cell)):
            raise Fault("its label is neither text nor a number")
        values = [text_of(value) for value in _listed(cell)]
        labels = tuple(dict.fromkeys(self._label(value) for value in values if value))
        if not labels:
            raise Fault("it has no label")
        return labels

    def _label(self, value: str) -> str:
        if not self.class_names or value in self.class_names:
            return value
        if re.fullmatch(r"\d{1,9}", value) and int(value) < len(self.class_names):
            return self.class_names[int(value)]
        if value == "-1":
            raise Fault("it has no label (-1)")
        raise Fault(f"its label '{value[:60]}' is not among the {len(self.class_names)} class names")

    def _split(self, cell: Any) -> str:
        value = text_of(cell)
        if not value:
            return ""
        if value not in self.splits and value.lower() not in self.splits:
            raise Fault(f"its split '{value[:60]}' is unknown: data.splits says which half it is")
        return self.splits.get(value) or self.splits[value.lower()]

    def _boxes(self, cells: Mapping[str, Any], labels: tuple[str, ...]) -> tuple[tuple[str, Box], ...]:
        boxes, names = _parsed(cells.get("boxes"), "boxes"), _parsed(cells.get("box_labels"), "box labels")
        masks = _parsed(cells.get("masks"), "masks")
        if isinstance(boxes, Mapping):  # the Hub's convention for objects: columns in a cell
            names = _of(boxes, "categories", "category", "label", "labels") if names is None else names
            boxes = _of(boxes, "bbox", "boxes", "box")
        if boxes is not None and _listed(boxes) and all(isinstance(box, Mapping) for box in _listed(boxes)):
            names = [_of(box, "label", "category", "phrase", "name") for box in _listed(boxes)]
            boxes = [_of(box, "box", "bbox") for box in _listed(boxes)]
        if boxes is None and masks is not None:
            found = [box_of_mask(mask) for mask in _listed(masks)]
        else:
            found = [to_xyxy(box, self.box_format) for box in _listed(boxes)]
        phrases = [text_of(name) for name in _listed(names)]
        if names is None and len(labels) == 1:
            phrases = [labels[0]] * len(found)
        if len(phrases) != len(found):
            raise Fault(f"it has {len(found)} boxes and {len(phrases)} names of boxes")
        if not all(phrases):
            raise Fault(f"its box {phrases.index('') + 1} has no name")
        return tuple(zip(map(self._name, phrases), found, strict=True))

    def _name(self, phrase: str) -> str:
        numbered = phrase.isascii() and phrase.isdigit() and int(phrase) < len(self.class_names)
        return self.class_names[int(phrase)] if numbered else phrase


def find_roles(
    columns: Mapping[str, str], there: Collection[str], where: str, required: Iterable[str] = ("image", "label")
) -> dict[str, str]:
    """Which column holds what: those that the configuration maps, then those whose names are known.

    Raises:
        UserError: an unknown role, no such column (with the nearest names), or no column of a required role.
    """
    roles = {}
    for role, column in columns.items():
        if role not in ROLES:
            raise UserError(f"data.columns: there is nothing called '{role}' to map. {nearest(role, ROLES)}")
        if column not in there:
            raise UserError(f"data.columns.{role}: {where} has no column '{column}'. {nearest(column, there)}")
        roles[role] = column
    for role, names in ROLES.items():
        for name in names:
            if name in there and name not in roles.values():
                roles.setdefault(role, name)
    for role in required:
        if role not in roles:
            known = f"It has: {', '.join(sorted(there))}."
            raise UserError(f"data: {where} has no column for the {role}. {known} Map one: data.columns.{role}")
    return roles


def check_splits(splits: Mapping[str, str]) -> Mapping[str, str]:
    """The configuration's `splits`, or the usual names where there are none."""
    for name, half in splits.items():
        if half not in ("selection", "estimation"):
            raise UserError(f"data.splits.{name}: '{half}' is no half. {nearest(half, ('selection', 'estimation'))}")
    return splits or SPLITS


def text_of(cell: Any) -> str:
    """A cell as text: empty for None and NaN; a whole number has no decimals."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    value = str(cell).strip()
    return "" if value.lower() == "nan" else value


def caption_of(cell: Any) -> str:
    """A caption, or several as sentences, in one line."""
    texts = [" ".join(text_of(text).split()) for text in _listed(cell)]
    texts = [text for text in texts if text]
    return texts[0] if len(texts) == 1 else " ".join(text if text.endswith(".") else f"{text}." for text in texts)


def to_xyxy(box: Any, box_format: BoxFormat) -> Box:
    """Four numbers in any of the usual orders as x0, y0, x1, y1."""
    try:
        a, b, c, d = (float(number) for number in box)
    except (TypeError, ValueError):
        raise Fault(f"a box must be four numbers, not {str(box)[:60]}") from None
    if not all(map(math.isfinite, (a, b, c, d))):
        raise Fault("a box holds a number that is not finite")
    if box_format == "xywh":
        return a, b, a + c, b + d
    if box_format == "cxcywh":
        return a - c / 2, b - d / 2, a + c / 2, b + d / 2
    return a, b, c, d


WHOLE_RLE = re.compile(r"(?:[P-o]*[0-O])+")
"""Compressed counts whose last number is whole: the C code of pycocotools would read on past another."""


def box_of_mask(mask: Any) -> Box:
    """The box around a COCO segmentation: polygons [[x, y, x, y, ...], ...] or a run-length encoding, in pixels."""
    try:
        if isinstance(mask, Mapping):
            from pycocotools import mask as rle

            height, width = (int(side) for side in mask["size"])
            counts = mask["counts"]
            if not (0 < height < 1 << 16 and 0 < width < 1 << 16):
                raise ValueError
            if isinstance(counts, list):
                coded = rle.frPyObjects(
                    {"size": [height, width], "counts": [abs(int(n)) for n in counts]}, height, width
                )
            elif WHOLE_RLE.fullmatch(counts):
                coded = {"size": [height, width], "counts": counts}
            else:
                raise ValueError
            return to_xyxy(rle.toBbox(coded).tolist(), "xywh")
        points = [float(number) for polygon in mask for number in polygon]
        return min(points[::2]), min(points[1::2]), max(points[::2]), max(points[1::2])
    except ModuleNotFoundError:
        raise UserError("data: run-length masks need a package: pip install 'cuescope[data]'") from None
    except (TypeError, ValueError, KeyError):
        raise Fault("a mask is neither polygons nor a run-length encoding") from None


def _of(value: Mapping[str, Any], *names: str) -> Any:
    return next((value[name] for name in names if name in value), None)


def _listed(cell: Any) -> list[Any]:
    if cell is None:
        return []
    return list(cell) if isinstance(cell, list | tuple) or hasattr(cell, "tolist") else [cell]


def _parsed(cell: Any, what: str) -> Any:
    """A cell of boxes: in text files it is JSON."""
    if not isinstance(cell, str):
        return cell
    if not cell.strip():
        return None
    try:
        return parse_json(cell)
    except ValueError:
        raise Fault(f"its {what} are not JSON: {cell[:60]}") from None


def parse_json(text: str | bytes) -> Any:
    """What a JSON text says.

    Raises:
        ValueError: it is not JSON, or is nested beyond what Python reads.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None

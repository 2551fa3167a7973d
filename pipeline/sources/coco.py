"""COCO annotations: instances give classes and boxes, captions give captions (https://cocodataset.org/#format-data)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pipeline.errors import UserError
from pipeline.sources.items import Box, Fault, Item, box_of_mask, caption_of, parse_json, text_of, to_xyxy
from pipeline.sources.urls import Files, has_secret, is_url, shown


@dataclass(frozen=True)
class Coco:
    """See `coco`."""

    path: str
    captions_path: str | None
    own: Files
    files: Files
    label: str

    @property
    def root(self) -> str:
        """The folder or URL of the images."""
        return self.files.root

    def __iter__(self) -> Iterator[Item]:
        instances = _read(self.path, self.own, ("images", "annotations", "categories"))
        names = {row["id"]: text_of(row.get("name")) for row in instances["categories"] if _is_id(row.get("id"))}
        images: dict[Any, dict[str, Any]] = {}
        for row in instances["images"]:
            path = text_of(row.get("file_name"))
            if not _is_id(row.get("id")) or not path:
                yield Item(path or f"image {str(row.get('id'))[:40]}", (), fault="it has no id or no file_name")
            elif has_secret(path):
                why = "its file_name is a URL with a user or a query, which may be a secret: list it in a manifest"
                yield Item(shown(path), (), fault=why)
            elif row["id"] in images:
                yield Item(path, (), fault=f"its id {row['id']} is that of {images[row['id']]['file_name']}")
            else:
                images[row["id"]] = row
        boxes: dict[Any, list[tuple[str, Box]]] = defaultdict(list)
        for row in instances["annotations"]:
            here = f"annotation {row.get('id')}"
            try:
                boxes[_known(row, "image_id", images)].append((names[_known(row, "category_id", names)], _box(row)))
            except Fault as fault:
                yield Item(here, (), fault=str(fault))
        captions: dict[Any, list[str]] = defaultdict(list)
        if self.captions_path:
            for row in _read(self.captions_path, self.own, ("annotations",))["annotations"]:
                try:
                    captions[_known(row, "image_id", images)].append(text_of(row.get("caption")))
                except Fault as fault:
                    yield Item(f"caption {row.get('id')}", (), fault=str(fault))
        for image_id, row in images.items():
            yield self._item(row, boxes[image_id], captions[image_id])

    def _item(self, row: dict[str, Any], boxes: list[tuple[str, Box]], captions: list[str]) -> Item:
        if not boxes:
            return Item(text_of(row["file_name"]), (), fault="no object in it is annotated")
        if self.label == "largest":
            labels = [max(boxes, key=lambda thing: _area(thing[1]))[0]]
        else:
            labels = list(dict.fromkeys(phrase for phrase, _ in boxes))
        sides = (row.get("width"), row.get("height"))
        frame = None
        if all(isinstance(side, int | float) and 0 < side < 1 << 24 for side in sides):
            frame = (float(sides[0] or 0), float(sides[1] or 0))
        return Item(
            text_of(row["file_name"]), tuple(labels), caption=caption_of(captions), boxes=tuple(boxes), frame=frame
        )

    def stamp(self, path: str) -> str:
        """See `items.stamp_of`."""
        return self.files.stamp(path)

    def read(self, path: str) -> bytes:
        """The bytes of an image by its file_name."""
        return self.files.read(path)


def coco(
    *,
    path: str,
    root: str | None = None,
    captions_path: str | None = None,
    label: Literal["each", "largest"] = "each",
    storage: dict[str, Any] | None = None,
    allow_http: bool = False,
    allow_private: bool = False,
    allow_outside: bool = False,
) -> Coco:
    """A COCO data set: classes and boxes from its instances file, captions from its captions file.

    Args:
        path: the instances file, or its URL. root: the folder or URL of the images; default: the file's own folder.
        captions_path: a captions file of the same images.
        label: an image is audited for each category in it, or for that of the largest box alone.
        storage, allow_http, allow_private, allow_outside: see `urls.Files`.

    Raises:
        UserError: no such file.
    """
    at = path.rpartition("/")[0] if is_url(path) else str(PurePosixPath(path).parent)
    rules = (storage or {}, allow_http, allow_private)
    for name in filter(None, (path, captions_path)):
        if not is_url(name) and not Path(name).is_file():
            raise UserError(f"data: there is no file {name}.")
    own = Files(at, *rules, allow_outside=True)  # the annotations are the user's own choice
    return Coco(path, captions_path, own, Files(root or at, *rules, allow_outside), label)


def _read(path: str, files: Files, parts: tuple[str, ...]) -> dict[str, list[dict[str, Any]]]:
    try:
        content = parse_json(files.read_list(path))
    except OSError as error:
        raise UserError(f"data: {path} can't be read: {error.strerror or error}.") from None
    except ValueError as error:
        raise UserError(f"data: {path} is not JSON: {error}.") from None
    for part in parts:
        rows = content.get(part) if isinstance(content, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            hint = " A captions file goes to data.captions_path." if part == "categories" else ""
            raise UserError(f"data: {path} is no COCO file: it has no list of '{part}'.{hint}")
    return content


def _known(row: Mapping[str, Any], key: str, known: Mapping[Any, Any]) -> Any:
    value = row.get(key)
    if not _is_id(value) or value not in known:
        raise Fault(f"its {key} {str(value)[:40]} is not in the file")
    return value


def _is_id(value: Any) -> bool:
    return isinstance(value, int | str)


def _box(row: Mapping[str, Any]) -> Box:
    if row.get("bbox"):
        return to_xyxy(row["bbox"], "xywh")
    if row.get("segmentation"):
        return box_of_mask(row["segmentation"])
    raise Fault("it has neither bbox nor segmentation")


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])

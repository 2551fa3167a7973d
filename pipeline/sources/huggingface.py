"""Hugging Face data sets: one of the Hub, or a local folder (saved by `save_to_disk`, Parquet, or an imagefolder)."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.errors import UserError, nearest
from pipeline.sources.items import BoxFormat, BoxUnit, Columns, Item, check_splits, find_roles, parse_json
from pipeline.sources.urls import Files, shown
from pipeline.yaml_file import parse_yaml


@dataclass
class HuggingFace:
    """See `huggingface`."""

    name: str
    subset: str | None
    split: str | None
    revision: str | None
    mapped: dict[str, str]
    splits: dict[str, str]
    columns: Columns
    allow_outside: bool

    @property
    def root(self) -> str:
        """Images lie in tables, not in a folder."""
        return ""

    @functools.cached_property
    def parts(self) -> Mapping[str, Any]:
        """The data set's splits by name, pictures as bytes or paths."""
        import datasets

        parts = load(self.name, self.subset, self.split, self.revision, self.allow_outside)
        there = next(iter(parts.values())).column_names
        image = find_roles(self.mapped, there, self.name)["image"]
        return {name: part.cast_column(image, datasets.Image(decode=False)) for name, part in parts.items()}

    @functools.cached_property
    def roles(self) -> dict[str, str]:
        """What holds what."""
        return find_roles(self.mapped, next(iter(self.parts.values())).column_names, self.name)

    @functools.cached_property
    def files(self) -> Files:
        """Pictures that are kept by path: in the data set's own folder, or in the cache of what was downloaded."""
        import datasets

        local = Path(self.name).is_dir()
        root = self.name if local else str(Path(datasets.config.HF_CACHE_HOME))
        return Files(root, allow_outside=self.allow_outside)

    def __iter__(self) -> Iterator[Item]:
        reading = replace(self.columns, roles=self.roles)
        said = [column for role, column in self.roles.items() if role != "image"]
        for split, part in self.parts.items():
            chunks = part.data.column(self.roles["image"]).chunks  # the bytes beside the paths are not read
            names = [name for chunk in chunks for name in chunk.field("path").to_pylist()]
            half = check_splits(self.splits).get(split, "") if self.splits else ""
            for number, row in enumerate(part.select_columns(said)):
                path = f"{split}/{number}/{PurePosixPath(shown(names[number] or '')).name}".rstrip("/")
                item = reading.item(path, {column: named(part.features[column], row[column]) for column in said})
                yield replace(item, split=item.split or half)

    def read(self, path: str) -> bytes:
        """The bytes of a row's image: `split/number/...`."""
        split, number = path.split("/")[:2]
        image = self.parts[split][int(number)][self.roles["image"]] or {}
        if image.get("bytes"):
            return image["bytes"]
        return self.files.read(image.get("path") or "")


def huggingface(
    *,
    name: str,
    subset: str | None = None,
    split: str | None = None,
    revision: str | None = None,
    columns: dict[str, str] | None = None,
    separator: str | None = None,
    box_format: BoxFormat = "xywh",
    box_unit: BoxUnit = "pixel",
    splits: dict[str, str] | None = None,
    allow_outside: bool = False,
) -> HuggingFace:
    """A Hugging Face data set of the Hub, or in a local folder: saved to disk, Parquet, or an imagefolder.

    Args:
        name: a data set of the Hub (`org/name`), or a local folder.
        subset: its configuration, where it has several. split: one split (`train`); default: all. revision: of the Hub.
        columns: what holds what, see `items.ROLES`: {image: img, label: fine_label, boxes: objects, ...}.
        splits: the half of each of its splits, {train: selection, test: estimation}; by default halves are drawn.
            Values of a split column too. separator, box_format, box_unit: see `items.Columns`.
        allow_outside: pictures, and tables of them, that a local data set names by a path outside its folder too.

    Raises:
        UserError: no such folder, or the package `datasets` is not installed. Loading raises what can be mended too.
    """
    reading = Columns({}, (), separator, box_format, box_unit, check_splits(splits or {}))
    return HuggingFace(name, subset, split, revision, columns or {}, splits or {}, reading, allow_outside)


def load(
    name: str, subset: str | None, split: str | None, revision: str | None, allow_outside: bool = False
) -> Mapping[str, Any]:
    """The splits of a data set by name.

    Raises:
        UserError: it can't be had, or has no such split.
    """
    try:
        import datasets
    except ModuleNotFoundError:
        raise UserError("data: Hugging Face data sets need a package: pip install 'cuescope[data]'") from None
    datasets.disable_progress_bars()
    folder = Path(name)
    if folder.is_absolute() and not folder.is_dir():
        raise UserError(f"data: there is no folder {name}.")
    if folder.is_dir() and not allow_outside:
        check_card(folder)
    try:
        if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
            loaded = datasets.load_from_disk(name)
        else:
            loaded = datasets.load_dataset(name, subset, revision=revision)
    except Exception as error:  # of many types: the Hub, the network, broken tables
        why = " ".join(str(error).split())[:300] or type(error).__name__
        hint = (
            ""
            if folder.is_dir()
            else (
                f" If it isn't on this machine, run where there is a network: hf download {name} --repo-type dataset "
                "--local-dir FOLDER; bring that folder here and write name: FOLDER"
            )
        )
        raise UserError(f"data: the data set '{name}' can't be loaded: {why}{hint}") from None
    parts = dict(loaded) if isinstance(loaded, datasets.DatasetDict) else {str(loaded.split or "all"): loaded}
    if split is not None and split not in parts:
        raise UserError(f"data.split: '{name}' has no split '{split}'. {nearest(split, parts)}")
    return parts if split is None else {split: parts[split]}


def check_card(folder: Path) -> None:
    """A folder's card and state may name the files to read, and `datasets` would follow them anywhere.

    Raises:
        UserError: they name an address, or a place outside the folder.
    """
    named: list[str] = []
    for file in (folder / "README.md", folder / ".huggingface.yaml"):
        if file.is_file():
            text = file.read_text(encoding="utf-8", errors="replace")
            front = re.match(r"\s*---\s*\n(.*?)\n---\s*(\n|$)", text, re.DOTALL) if file.suffix == ".md" else None
            try:
                card = parse_yaml(front[1] if front else "" if file.suffix == ".md" else text)
            except ValueError as error:
                raise UserError(f"data: {file} can't be read: {error}. Mend or remove it.") from None
            named += _texts(card.get("configs") if isinstance(card, dict) else None)
    for file in folder.glob("**/state.json"):
        try:
            named += _texts(parse_json(file.read_bytes()).get("_data_files"))
        except (OSError, ValueError, AttributeError):
            continue
    for name in named:
        if "://" in name or "::" in name or name.startswith(("/", "~")) or ".." in PurePosixPath(name).parts:
            raise UserError(
                f"data: the data set in {folder} takes its files from '{shown(name)}', which lies outside it. "
                "data.allow_outside: true allows any place."
            )


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    return [text for one in value for text in _texts(one)] if isinstance(value, list) else []


def named(feature: Any, value: Any) -> Any:
    """A cell with every class number in it as the class's name; None for a number that names none."""
    if value is None:
        return None
    if names := getattr(feature, "names", None):
        return names[value] if isinstance(value, int) and 0 <= value < len(names) else None
    if isinstance(feature, Mapping) and isinstance(value, Mapping):
        return {key: named(feature[key], inner) for key, inner in value.items()}
    inner = getattr(feature, "feature", None)
    if isinstance(inner, Mapping) and isinstance(value, Mapping):  # a sequence of structs is a struct of lists
        return {key: [named(inner[key], one) for one in many] for key, many in value.items()}
    if inner is not None and isinstance(value, list):
        return [named(inner, one) for one in value]
    return value

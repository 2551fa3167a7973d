"""The configuration of an audit: one page of YAML, every line with a default but the data and the model."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pipeline import secrets
from pipeline.errors import UserError, nearest
from pipeline.models import registry
from pipeline.yaml_file import parse_yaml, read_yaml


class Section(BaseModel):
    """A part of the configuration; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class BackEnd(BaseModel):
    """A section that chooses a back end: `kind`, and that back end's own options (see `cuescope doctor`)."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())
    kind: str = Field(description="the back end's name")

    @property
    def options(self) -> dict[str, Any]:
        """The options beside `kind`."""
        return dict(self.__pydantic_extra__ or {})


class Data(BackEnd):
    """Where the images come from."""

    @model_validator(mode="before")
    @classmethod
    def _source_is_kind(cls, value: Any) -> Any:
        if isinstance(value, dict) and "kind" not in value:
            value = {**value, "kind": value.get("source", "folder")}
            value.pop("source", None)
        return value


class Cluster(Section):
    """Unnamed cues: spherical k-means over region embeddings."""

    enabled: bool = Field(default=True, description="whether regions are clustered; they need the section embed")
    k_min: int = Field(default=0, ge=0, description="fewest clusters tried; 0: ten times the number of classes")
    k_max: int = Field(default=0, ge=0, description="most clusters tried; 0: thirty times the number of classes")
    sweep: int = Field(default=3, ge=1, le=50, description="how many values of k are tried between them")
    sample: int = Field(default=100_000, ge=100, description="most regions that k-means sees")


class Measure(Section):
    """Association and observed gaps."""

    top_k: int = Field(default=50, ge=1, description="SpurLens' K: images at each end of the presence ranking")
    max_per_class: int = Field(default=8, ge=1, description="most cues of a class that are taken to ablation")
    absent: int = Field(
        default=40,
        ge=0,
        description="most images of a class that a multimodal LLM is shown with the object masked, and removed",
    )


class Ablate(Section):
    """Counterfactual edits and their placebos."""

    enabled: bool = Field(default=True, description="without edits the audit is of what was observed alone")
    mode: Literal["racing", "exhaustive"] = Field(
        default="racing", description="spend edits where the ranking is undecided, or make every edit with every fill"
    )
    fills: list[str] = Field(
        default=["mean", "blur", "inpaint"],
        min_length=1,
        description="how pixels are replaced; several, as each is a cue",
    )
    budget: int = Field(default=20_000, ge=0, description="most edited images that the model under test is shown")
    images: int = Field(
        default=40, ge=2, description="most images of an experiment (one cue, one class, one direction)"
    )
    max_cover: float = Field(
        default=0.35, gt=0, le=1, description="most of the object's own box that an edit may cover"
    )

    @field_validator("fills")
    @classmethod
    def _known(cls, fills: list[str]) -> list[str]:
        for fill in fills:
            registry.factory("fill", fill)
        return fills


class Rank(Section):
    """Verdicts and their order."""

    q: float = Field(default=0.05, gt=0, lt=1, description="false-discovery rate of the confirmed findings")
    correction: Literal["bh", "by"] = Field(
        default="bh", description="Benjamini-Hochberg or -Yekutieli, where the ablation is exhaustive; a race has e-BH"
    )
    smallest_effect: float = Field(
        default=0.05, ge=0, lt=1, description="an effect below this is of no practical interest"
    )
    core_overlap: float = Field(
        default=0.5, gt=0, le=1, description="a cue that lies this much in the object's box is core"
    )


NO_SECRETS = re.compile(r"(?:jsons?|xmls?|forms?)://[^/?#@]+(?:/[\w./-]*)?|(?:dbus|syslog|windows|macosx)://[\w./-]*")
"""Addresses for notifications that can be written out in full: nobody has to log in at them."""


class Operate(Section):
    """How audits of this configuration are run again and again; what they find doesn't depend on it."""

    keep: int = Field(default=0, ge=0, description="finished audits that are kept; 0: all of them")
    notify: list[str] = Field(
        default=[], description="addresses (https://appriseit.com), secrets as ${NAME} from the environment"
    )
    notify_when: Literal["worse", "always"] = Field(
        default="worse", description="worse: a finding is new or worse, or the audit failed; or after every audit"
    )

    @field_validator("notify")
    @classmethod
    def _no_secrets(cls, addresses: list[str]) -> list[str]:
        for place, address in enumerate(addresses, start=1):
            if not (re.search(r"\$\{\w+\}", address) or NO_SECRETS.fullmatch(address)):
                raise ValueError(
                    f"address {place} may hold a secret: put the address, or its secret parts, into an environment "
                    "variable, and write ${NAME} here"
                )
        return addresses


SEAMS = {
    "data": "source",
    "model": "model",
    "caption": "caption",
    "propose": "propose",
    "detect": "detect",
    "embed": "embed",
}


class Audit(Section):
    """One run: data set x model x configuration."""

    data: Data = Field(description="where the images come from")
    model: BackEnd = Field(description="the model under test")
    caption: BackEnd | None = Field(default=None, description="puts the images into words; null or none: nobody does")
    propose: BackEnd | None = Field(default=BackEnd(kind="captions"), description="names candidate cues")
    detect: BackEnd | None = Field(default=None, description="finds named things, and the classes' own objects")
    embed: BackEnd | None = Field(default=None, description="embeds regions and whole images")
    cluster: Cluster = Field(default=Cluster(), description="unnamed cues")
    measure: Measure = Field(default=Measure(), description="association and observed gaps")
    ablate: Ablate = Field(default=Ablate(), description="edits and their placebos")
    rank: Rank = Field(default=Rank(), description="verdicts and their order")
    classes: list[str] = Field(default=[], description="class names in order; empty: every label of the data")
    prompts: dict[str, str] = Field(default={}, description="words for a label where its name won't do")
    no_split: bool = Field(
        default=False, description="one half for everything: for small sets; estimates are then optimistic"
    )
    renew: float = Field(
        default=0.2,
        ge=0,
        description="share of new images in the selection half at which an audit that goes on from an earlier one "
        "chooses its cues anew; until then it keeps them, so that the two can be compared",
    )
    reread: bool = Field(
        default=False,
        description="read every image file again, also those whose size and time of change are as they were",
    )
    shard: int = Field(default=256, ge=1, description="images of a unit of work")
    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:1, mps")
    cache: str | None = Field(
        default=None, description="folder of the feature cache; default: .cuescope beside the output"
    )
    verdicts: str | None = Field(
        default=None, description="file of labelers' verdicts; default: in the folder verdicts beside the output"
    )
    operate: Operate = Field(default=Operate(), exclude=True, description="how audits are run again and again")
    seed: int = Field(default=0, description="of everything random")

    @field_validator("caption", "propose", "detect", "embed", mode="before")
    @classmethod
    def _none_is_off(cls, value: Any) -> Any:
        return None if value in (False, "none", {"kind": "none"}) else value

    @model_validator(mode="before")
    @classmethod
    def _hold_no_secrets(cls, raw: Any) -> Any:
        for place, reason in secrets.found_in(raw):
            raise UserError(
                f"{place}: {reason}, and a configuration is written into the audit and its report. Give it by an "
                "environment variable that the service's own client reads (api_key_env names one for language models)."
            )
        return raw

    @model_validator(mode="after")
    def _check_back_ends(self) -> Audit:
        for section, seam in SEAMS.items():
            chosen = getattr(self, section)
            if chosen is not None:
                registry.check_options(seam, chosen.kind, chosen.options)
        return self

    @classmethod
    def from_yaml(cls, path: str | Path, overrides: list[str] | None = None) -> Audit:
        """Read a configuration; paths in it are relative to its folder. `overrides` are `key.key=value` strings.

        Raises:
            UserError: no such file, not YAML, an unknown key or back end (with the nearest name), a wrong value.
        """
        path = Path(path)
        if not path.is_file():
            raise UserError(f"There is no configuration file {path}. Write one with: cuescope init IMAGE_FOLDER")
        try:
            raw = read_yaml(path)
        except (OSError, ValueError) as error:
            raise UserError(f"{path} is no configuration: {error}.") from None
        if not isinstance(raw, dict):
            raise UserError(f"{path} holds no configuration: expected keys such as 'data' and 'model'.")
        for override in overrides or []:
            _override(raw, override)
        return cls.from_dict(raw, base=path.parent, where=str(path))

    @classmethod
    def from_dict(cls, raw: dict[str, Any], base: Path | None = None, where: str = "configuration") -> Audit:
        """The same from a dictionary; relative paths start from the folder `base` (default: the current one)."""
        try:
            return cls.model_validate(_absolute(raw, (base or Path.cwd()).resolve()))
        except ValidationError as error:
            raise UserError(f"{where}: {_explain(error)}") from None

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `from_dict` turns back into an equal audit, but for `operate`, which no audit depends on."""
        return json.loads(self.model_dump_json())

    def digest(self) -> str:
        """A short hash of the whole configuration."""
        return hashlib.blake2b(json.dumps(self.to_dict(), sort_keys=True).encode(), digest_size=8).hexdigest()

    def words(self, label: str) -> str:
        """What a label is called in prompts: underscores become spaces."""
        return self.prompts.get(label, label.replace("_", " ").replace("-", " ").strip())


PATH_KEYS = frozenset({"path", "name", "cache", "checkpoint", "root", "text_model", "captions_path", "verdicts"})


def _absolute(value: Any, base: Path, key: str = "") -> Any:
    """Every path made absolute: `path` always, a `name` only where it is a local-dir or exists beside the file."""
    if isinstance(value, dict):
        return {k: _absolute(v, base, str(k)) for k, v in value.items()}
    if isinstance(value, list):
        return [_absolute(v, base) for v in value]
    if not isinstance(value, str) or key not in PATH_KEYS or "://" in value:
        return value
    scheme, rest = ("local-dir:", value[10:]) if value.startswith("local-dir:") else ("", value)
    candidate = base / Path(rest).expanduser()
    if scheme or key in ("path", "cache", "root", "captions_path", "verdicts") or candidate.exists():
        return f"{scheme}{candidate.resolve()}"
    return value


def _override(raw: dict[str, Any], assignment: str) -> None:
    key, equals, text = assignment.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z_][\w]*(\.[A-Za-z_][\w]*)*", key):
        raise UserError(f"--set {key}: expected key=value, for example --set ablate.budget=5000")
    *parents, last = key.split(".")
    place = raw
    for parent in parents:
        inner = place.get(parent)
        if not isinstance(inner, dict):
            inner = {}
            place[parent] = inner
        place = inner
    try:
        place[last] = parse_yaml(text)
    except ValueError:
        raise UserError(f"--set {key}: its value is not YAML; put it in quotation marks.") from None


def _explain(error: ValidationError) -> str:
    """The first fault of a configuration in one line, with the nearest right key."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"]]
    if first["type"] == "extra_forbidden":
        fields: Any = Audit
        for part in place[:-1]:
            fields = fields.model_fields[part].annotation
        return f"unknown key '{'.'.join(place)}'. {nearest(place[-1], fields.model_fields)}"
    if first["type"] == "missing":
        return f"the key '{'.'.join(place)}' is missing."
    return f"'{'.'.join(place)}': {first['msg'].lower()}."

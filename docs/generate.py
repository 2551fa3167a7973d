"""Write the pages of the reference that follow from the code: `python docs/generate.py`. A test holds them to it.

commands.md comes from the command line, configuration.md from its schema, tables.md from the tables' schemas and the
comments beside their columns, back-ends.md from the registry.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args
from unittest import mock

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pipeline import records
from pipeline.back_ends import example, first_sentence
from pipeline.back_ends import markdown as back_ends
from pipeline.cli import app
from pipeline.config import SEAMS, Audit, BackEnd
from pipeline.models import registry

HERE = Path(__file__).parent
WRITTEN_BY = "Written by `python docs/generate.py`; a test holds it to the code.\n"

COMMANDS = f"""\
# Command line

{WRITTEN_BY}
`cuescope --install-completion` sets up completion for bash, zsh or fish. What goes to people (progress, warnings) is
written to standard error, what was asked for to standard output. [Use it in scripts and CI](scripting.md) says more.

| exit code | meaning |
| --- | --- |
| 0 | done |
| 1 | a fault of Cuescope, with a stack trace; or, of `planted score` and `bench`, a promise that was missed |
| 2 | something for you to mend, said in one line |
| 3 | from `diff` and `audit`: a finding is new or worse |
| 130 | stopped from the keyboard; the same command goes on from there |
| 141 | whoever reads the output, such as `head`, has gone |

"""

CONFIGURATION = f"""\
# Configuration

{WRITTEN_BY}
A configuration is a YAML file; `cuescope init` writes a commented one. Paths in it are relative to its folder. Unknown
keys are errors, told with the nearest right one. `--set key=value` changes one from the command line:
`--set ablate.budget=5000`.

```yaml
data: {{source: folder, path: images}}
model: {{kind: open_clip, name: ViT-B-32, pretrained: laion2b_s34b_b79k}}
```

is the least that runs: everything else has a default, and the parts that are left out are said in the report.
"""

TABLES = f"""\
# Tables of an audit

{WRITTEN_BY}
An audit is a folder with a Parquet file a table, and `run.json`. The tables are the only contract between the stages,
the report, the exports and the comparison of audits. `pipeline.load(folder).table(name)` reads one; so does anything
that reads Parquet.

Scores and shares lie in [0, 1] unless a name says otherwise; effects and gaps are differences of shares, so they lie in
[-1, 1]; `_lower` and `_upper` bound a 95 % interval; NaN (null in text) means "not measured". Boxes are
(left, top, right, bottom) as shares of width and height.

"""


def commands() -> str:
    """The page of the command line."""
    with mock.patch.object(sys, "argv", ["cuescope"]):  # from which cyclopts takes a program's name
        lines = app.generate_docs(output_format="markdown", recursive=True, usage_name="cuescope").splitlines()
    start = lines.index("**Commands**:")
    text = "\n".join(lines[start:]).replace("```console", "```text").replace("\n\n\n", "\n\n")
    return f"{COMMANDS}{text.strip()}\n"


def configuration() -> str:
    """The page of the configuration: the top level, then a part a section."""
    sections = {name: kind for name, field in Audit.model_fields.items() if (kind := _section(field)) is not None}
    parts = [CONFIGURATION, "## The top level", "", *_rows(Audit, sections)]
    for name, kind in sections.items():
        meaning = _first(kind) if not issubclass(kind, BackEnd) else f"{Audit.model_fields[name].description}."
        parts += ["", f"## {name}", "", meaning[0].upper() + meaning[1:], ""]
        parts += _choice(name) if issubclass(kind, BackEnd) else _rows(kind, {})
    return "\n".join(parts) + "\n"


def _choice(name: str) -> Iterator[str]:
    seam = SEAMS[name]
    yield f"`{'source' if name == 'data' else 'kind'}` chooses a back end; its own options stand beside it."
    yield from ("", "| in a configuration | what |", "| --- | --- |")
    for kind, back_end in registry.BUILT_IN[seam].items():
        what = first_sentence(inspect.getdoc(registry.factory(seam, kind)) or "")
        yield f"| `{example(seam, kind, back_end)}` | {_cell(what)} |"
    yield from ("", "Their options, and what they need: [Back ends](back-ends.md).")


def _section(field: FieldInfo) -> type[BaseModel] | None:
    kinds = [kind for kind in (get_args(field.annotation) or (field.annotation,)) if isinstance(kind, type)]
    return next((kind for kind in kinds if issubclass(kind, BaseModel)), None)


def _first(kind: type[BaseModel]) -> str:
    return (inspect.getdoc(kind) or "").split("\n\n")[0]


def _rows(kind: type[BaseModel], sections: dict[str, Any]) -> Iterator[str]:
    yield "| key | type | default | meaning |"
    yield "| --- | --- | --- | --- |"
    schema = kind.model_json_schema(by_alias=False)["properties"]
    for name, field in kind.model_fields.items():
        meaning = field.description or ""
        if not meaning:
            raise SystemExit(f"{kind.__name__}.{name} has no description")
        shown = f"[`{name}`](#{name})" if name in sections else f"`{name}`"
        typed = "section" if name in sections else _type(schema[name])
        yield f"| {shown} | {typed} | {_default(field)} | {meaning} |"


def _type(schema: dict[str, Any]) -> str:
    """A JSON schema in words: `integer, at least 1`."""
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{one}`" for one in schema["enum"])
    kind = {"array": "list", "object": "mapping", "string": "text", "boolean": "true or false"}.get(
        schema["type"], schema["type"]
    )
    if kind == "list":
        kind = f"list of {_type(schema['items'])}"
    limits = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    return ", ".join([kind, *(f"{word} {schema[name]:g}" for name, word in limits.items() if name in schema)])


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if isinstance(value, BackEnd):
        return f"`{{kind: {value.kind}}}`"
    return "see below" if isinstance(value, BaseModel) else f"`{json.dumps(value)}`"


def tables() -> str:
    """The page of the tables; what a column means is the comment beside it in pipeline/records.py."""
    parts = [TABLES]
    for name, (head, notes) in _comments().items():
        parts += [f"## {name}", "", *([head[0].upper() + head[1:] + ".", ""] if head else [])]
        parts += ["| column | type | meaning |", "| --- | --- | --- |"]
        for field in records.SCHEMAS[name]:
            parts.append(f"| `{field.name}` | {_arrow(str(field.type))} | {_cell(notes.get(field.name, ''))} |")
        parts.append("")
    return "\n".join(parts).rstrip() + "\n"


def _comments() -> dict[str, tuple[str, dict[str, str]]]:
    """Of each table in pipeline/records.py the comment above it, and those beside its columns."""
    found: dict[str, tuple[str, dict[str, str]]] = {}
    above: list[str] = []
    source = inspect.getsource(records)
    for line in source[source.index("SCHEMAS:") :].splitlines():
        if line.startswith("    # "):
            above.append(line.removeprefix("    # "))
        elif table := re.match(r'    "(\w+)": _schema\(', line):
            found[table[1]] = (" ".join(above), {})
            above = []
        elif found and (column := re.match(r'\s+(?:\*\*\{")?(\w+)(?:": \w+\}|=[^#]*),?\s+#\s*(.*)$', line)):
            found[list(found)[-1]][1][column[1]] = column[2]
        elif line == "}":
            return found
    raise ValueError("the tables' schemas have no end")


def _arrow(kind: str) -> str:
    words = {"string": "text", "double": "number", "float": "number", "int64": "integer", "bool": "true or false"}
    plain = re.sub(
        r"(?:fixed_size_)?list<(?:item|element): (.*)>(?:\[(\d+)\])?", lambda m: f"list of {_arrow(m[1])}", kind
    )
    return "box" if kind.startswith("fixed_size_list") else words.get(plain, plain)


def _cell(text: str) -> str:
    return text.replace("|", "or").replace("<", "&lt;")


PAGES = {
    "commands.md": commands,
    "configuration.md": configuration,
    "tables.md": tables,
    "back-ends.md": back_ends,
}

if __name__ == "__main__":
    for name, write in PAGES.items():
        (HERE / name).write_text(write(), encoding="utf-8")
        print(HERE / name, file=sys.stderr)

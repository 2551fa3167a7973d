"""Imports go one way: flows, cli -> api -> chain -> stages -> evidence -> (metrics, models, ...) -> the ground."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LAYERS = [
    {"cells", "errors", "geometry", "images", "json_text", "places", "quiet", "secrets", "yaml_file"},
    {"records", "words"},
    {"store", "locks", "properties"},
    {"metrics", "models", "sources"},
    {"config", "verdicts"},
    {"evidence"},
    {"report", "export"},
    {"context"},
    {"stages", "planted"},
    {"chain", "progress"},
    {"api", "back_ends", "doctor", "dry_run", "history", "import_verdicts", "init", "notify"},
    {"operate", "review"},
    {"flows"},
    {"cli", "commands", "bench"},
    {"__main__", "__init__"},
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}


def unit(module: str) -> str:
    parts = module.split(".")
    return "flows" if parts[0] == "flows" else (parts[1] if len(parts) > 1 else "__init__")


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = (
                [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "pipeline" else [node.module]
            )
            found.update(names)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return {name for name in found if name.split(".")[0] in ("pipeline", "flows")}


FILES = sorted([*ROOT.glob("pipeline/**/*.py"), *ROOT.glob("flows/**/*.py")])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_module_imports_upwards(path: Path) -> None:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    here = unit(module.removesuffix(".__init__") if module != "pipeline.__init__" else "pipeline")
    assert here in RANK, f"{module}: name its layer in this test"
    for imported in imports(path):
        target = unit(imported)
        assert RANK[target] <= RANK[here], f"{module} ({here}) imports {imported} ({target})"


def test_planted_worlds_are_known_to_nothing_that_audits() -> None:
    for path in FILES:
        module = path.relative_to(ROOT).as_posix()
        if "planted" in module or module.startswith(("pipeline/cli", "pipeline/commands", "pipeline/bench")):
            continue
        assert not any("planted" in name for name in imports(path)), module

"""The notebooks run as they are, and what they claim holds."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
PHOTOGRAPHS = NOTEBOOKS.parent.parent / "shared" / "data" / "cifar10"
MOST_BYTES = 1_500_000

PATH = re.compile(r"(?<![\w.:/+=<-])(?:/[A-Za-z][\w.-]*){2,}/")
"""An absolute path: it would name the machine that a notebook was executed on."""


def paths_in(notebook: nbformat.NotebookNode) -> list[str]:
    """Absolute paths in outputs, pictures aside."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    texts = [{k: v for k, v in output.get("data", {}).items() if not k.startswith("image/")} for output in outputs]
    return PATH.findall(json.dumps([[output.get("text", "") for output in outputs], texts]))


def execute(name: str) -> nbformat.NotebookNode:
    """The notebook with the outputs that it has here and now; an error in a cell is one of the test."""
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    resources = {"metadata": {"path": str(NOTEBOOKS)}}
    nbclient.NotebookClient(notebook, timeout=1200, kernel_name="python3", resources=resources).execute()
    assert len(nbformat.writes(notebook)) < MOST_BYTES
    return notebook


OTHERS = ("reading_a_finding", "labelers_in_the_loop", "spurlens_multimodal")


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("name", ["quickstart", *(pytest.param(name, marks=pytest.mark.release) for name in OTHERS)])
def test_a_notebook_runs_and_its_claims_hold(name: str) -> None:
    """Each asserts what it claims; the first leaves the demo's audit for those after it."""
    notebook = execute(f"{name}.ipynb")
    source = "".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    assert "assert " in source
    assert paths_in(notebook) == []


@pytest.mark.release
@pytest.mark.timeout(1500)
def test_planted_cues_come_first_on_real_photographs() -> None:
    """The walkthrough's own last cell asserts it; here the whole notebook is executed and must get that far."""
    missing = [name for name in ("train.parquet", "test.parquet") if not (PHOTOGRAPHS / name).is_file()]
    if missing:
        pytest.skip(f"needs the CIFAR-10 photographs, {' and '.join(missing)}, in ../shared/data/cifar10")
    notebook = execute("real_photographs.ipynb")
    last = notebook.cells[-1]
    assert "assert" in last.source
    assert "planted cues come first" in "".join(output.get("text", "") for output in last.outputs)


def test_notebooks_are_committed_with_small_outputs_and_no_error() -> None:
    """What a reader sees in the repository is an executed notebook."""
    paths = sorted(NOTEBOOKS.glob("*.ipynb"))
    assert paths
    for path in paths:
        notebook = nbformat.read(path, as_version=4)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert code and all(cell.outputs for cell in code[-1:]), path
        assert not [o for cell in code for o in cell.outputs if o.output_type == "error"], path
        assert path.stat().st_size < MOST_BYTES, path
        assert paths_in(notebook) == [], path
        for cell in code:
            compile(cell.source, str(path), "exec")

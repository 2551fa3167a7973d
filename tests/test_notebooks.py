"""The notebooks run as they are, and what they claim holds."""

from __future__ import annotations

from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
PHOTOGRAPHS = NOTEBOOKS.parent.parent / "shared" / "data" / "cifar10"
MOST_BYTES = 1_500_000


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_planted_cues_come_first_on_real_photographs() -> None:
    """The walkthrough's own last cell asserts it; here the whole notebook is executed and must get that far."""
    missing = [name for name in ("train.parquet", "test.parquet") if not (PHOTOGRAPHS / name).is_file()]
    if missing:
        pytest.skip(f"needs the CIFAR-10 photographs, {' and '.join(missing)}, in ../shared/data/cifar10")
    nbclient = pytest.importorskip("nbclient")
    import nbformat

    notebook = nbformat.read(NOTEBOOKS / "real_photographs.ipynb", as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    resources = {"metadata": {"path": str(NOTEBOOKS)}}
    nbclient.NotebookClient(notebook, timeout=1200, kernel_name="python3", resources=resources).execute()
    last = notebook.cells[-1]
    assert "assert" in last.source
    assert "planted cues come first" in "".join(output.get("text", "") for output in last.outputs)
    assert len(nbformat.writes(notebook)) < MOST_BYTES


def test_notebooks_are_committed_with_small_outputs_and_no_error() -> None:
    """What a reader sees in the repository is an executed notebook."""
    import nbformat

    paths = sorted(NOTEBOOKS.glob("*.ipynb"))
    assert paths
    for path in paths:
        notebook = nbformat.read(path, as_version=4)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert code and all(cell.outputs for cell in code[-1:]), path
        assert not [o for cell in code for o in cell.outputs if o.output_type == "error"], path
        assert path.stat().st_size < MOST_BYTES, path
        for cell in code:
            compile(cell.source, str(path), "exec")

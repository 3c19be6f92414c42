"""The notebook in docs is executed, and its stored outputs are those that come."""

from pathlib import Path

import pytest
from support import peer

NOTEBOOK = Path(__file__).parents[1] / "docs" / "first_hour.ipynb"


def said(cell):
    """What a cell of code has put out, as text; in how many pieces a print arrives, no one says."""
    return "".join(o["text"] if "text" in o else o["data"]["text/plain"] for o in cell.outputs)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what runs the notebook
def test_the_notebook_puts_out_what_it_says(tmp_path, monkeypatch):
    nbformat, nbclient = peer("nbformat"), peer("nbclient")
    peer("ipykernel")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))  # nobody's own settings
    stored = nbformat.read(NOTEBOOK, as_version=4)
    fresh = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(
        fresh, timeout=60, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    code = [(a, b) for a, b in zip(stored.cells, fresh.cells, strict=True) if a.cell_type == "code"]
    assert len(code) >= 10
    for before, after in code:
        assert said(before) == said(after), before.source
    assert any("text/html" in o.get("data", {}) for _, cell in code for o in cell.outputs)

"""The notebook in docs is executed, and its stored outputs are those that come."""

import subprocess
import sys
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


COMPLETED = """
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell.instance()
shell.run_cell('''
import numpy as np
import refnet
from refnet.arithmetic import core

net = refnet.Net()
net.output(net.add("relu", "first_relu", (net.input("data", (1, 1, 1, 1, 1)),)))
run = refnet.forward(net, refnet.fill.inputs(net))
grads = refnet.backward(run, refnet.fill.output_gradients(net))
''')
for typed in (
    *('core.conv', 'core["max', 'core.conv3d.forward(x, w, str', 'grads["', 'run.blobs["'),
    'refnet.build("", fre',
):
    with provisionalcompleter():
        print(*(found.text for found in shell.Completer.completions(typed, len(typed))))
"""


def test_a_notebook_completes_operators_attributes_blobs_and_gradients(tmp_path, monkeypatch):
    peer("IPython")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    command = [sys.executable, "-c", COMPLETED]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    said = [line.split() for line in ran.stdout.splitlines()]
    wanted = ("conv3d", "max_pool3d", "stride=", "data", "first_relu", "freeze_at=")
    assert len(said) == len(wanted) and all(a in b for a, b in zip(wanted, said, strict=True)), ran.stdout

"""The documentation of certification: each example is run, and prints what it says."""

import re
from pathlib import Path

import numpy as np
import pytest

from refnet.arithmetic import reference

PAGE = (Path(__file__).parents[1] / "docs" / "certify.md").read_text()


def block(marker):
    """The block of code or output behind this marker."""
    (found,) = re.findall(rf"<!-- {marker} -->\n```\w*\n(.*?)```\n", PAGE, re.DOTALL)
    return found


def of_a_call():
    """The arrays of the first example: y of a kernel turned over in time."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 16, 4, 9, 9)).astype(np.float32)
    w = rng.standard_normal((8, 16, 3, 3, 3)).astype(np.float32)
    y, _ = reference.conv3d.forward(x, np.ascontiguousarray(w[:, :, ::-1]), pad=(1, 1, 1))
    for name, array in {"x": x, "w": w, "y": y}.items():
        np.save(f"{name}.npy", array)


@pytest.mark.parametrize(("example", "prepare"), [("one call", of_a_call), ("a network", lambda: None)])
def test_the_examples_print_what_they_say(example, prepare, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepare()
    exec(block(f"example: {example}"), {})
    assert capsys.readouterr().out == block(f"printed: {example}")

"""The documentation of ports: each example is run, and prints what it says."""

import re
from pathlib import Path

import pytest
from support import peer

PAGE = (Path(__file__).parents[1] / "docs" / "porting.md").read_text()
EXAMPLES = ("torch", "onnx", "jax")


def block(marker):
    """The block of code or output behind this marker."""
    (found,) = re.findall(rf"<!-- {marker} -->\n```\w*\n(.*?)```\n", PAGE, re.DOTALL)
    return found


@pytest.mark.parametrize("framework", EXAMPLES)
def test_the_examples_do_what_they_say(framework, capsys):
    for name in {"onnx": ("onnx", "onnxruntime")}.get(framework, (framework,)):
        peer(name)
    names = {"__name__": f"port_in_{framework}"}
    exec(block(f"example: {framework}"), names)
    assert capsys.readouterr().out == ""
    assert names["report"].ok and len(names["report"].verdicts) > 20
    exec(block(f"example: {framework}, mistake"), names)
    assert capsys.readouterr().out == block(f"printed: {framework}, mistake")
    assert not names["report"].ok


def test_every_block_is_run():
    """But for those that show how something is called, in a line."""
    markers = [m for f in EXAMPLES for m in (f"example: {f}", f"example: {f}, mistake")]
    assert PAGE.count("```python\n") == len(markers) == len([block(marker) for marker in markers])

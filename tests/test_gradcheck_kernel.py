"""The documentation's kernel of one's own: what it says is run, and prints what it says."""

import re
from pathlib import Path

import pytest
from support import peer

DOCS = Path(__file__).parents[1] / "docs"


def block(name):
    """The block of code or output behind this marker."""
    texts = [path.read_text() for path in sorted(DOCS.glob("gradcheck*"))]
    (found,) = re.findall(rf"<!-- {name} -->\n```\w*\n(.*?)```\n", "".join(texts), re.DOTALL)
    return found


@pytest.fixture
def torch():
    """Of one thread: beside those of `core`, more would wait."""
    torch = peer("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch
    torch.set_num_threads(threads)


def test_the_example_does_what_it_says(torch, capsys):
    names = {}
    exec(block("example: kernel"), names)
    assert capsys.readouterr().out == ""
    exec(block("example: mistake"), names)
    assert capsys.readouterr().out == block("printed")

"""Kernels stay within their arrays, on some of the problems of guarded.py; and what does not is seen."""

import ctypes
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from refnet._core import micro_kernel

SCRIPT = Path(__file__).parent / "guarded.py"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="pages are closed as Linux does it")


@pytest.fixture
def guarded():
    return import_module("guarded")


def run(*arguments):
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True)


def first_draw(guarded, name):
    """The number of the first draw of that operator."""
    return next(i for i in range(1000) if guarded.drawn(np.random.default_rng((0, i)))[0].name == name)


def test_kernels_stay_within_their_arrays():
    done = run("--draws=100", "--seed=1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("100 draws")
    assert all(version in done.stdout for version in micro_kernel.versions())


@pytest.mark.parametrize("plant", ["results", "operands"])
@pytest.mark.parametrize("version", micro_kernel.versions())
def test_an_element_out_of_bounds_is_found(guarded, version, plant):
    """Read or written, before an array or behind it; the draw is named, and computed again finds it again."""
    first = first_draw(guarded, "conv3d")
    done = run(f"--plant={plant}", f"--first={first}", "--draws=1", f"--versions={version}")
    assert done.returncode == guarded.FOUND
    *_, found, again = done.stderr.splitlines()
    assert f": draw {first}: conv3d " in found and version in found
    assert again == f"again: python tests/guarded.py --draws=1 --seed=0 --plant={plant} --first={first}"


@pytest.mark.parametrize("before", [False, True])
def test_what_is_written_into_the_rest_of_a_page_is_found(guarded, before):
    with pytest.raises(AssertionError, match="1 bytes .* 3 bytes from it on"), guarded.Fence(before):
        array = np.empty(10)
        beside = guarded.address(array) + (array.nbytes + 3 if before else -4)
        ctypes.memset(beside, 0, 1)


def test_tiles_of_every_size_are_drawn(guarded):
    """Rows of a last micro-tile, of 4, 6 or 12; and columns, of 4 to 32."""
    rows, columns = set(), set()
    for i in range(2000):
        op, case = guarded.drawn(np.random.default_rng((0, i)))
        if op.name == "conv3d":
            filters = case.shapes[1][0] // case.attrs["groups"]
            rows.add(filters % 12 if filters > 12 else -filters)
            columns.add(np.prod(op.infer(*case.shapes, **case.attrs)[2:]) % 32)
    assert set(range(12)) <= rows and set(range(-12, 0)) <= rows
    assert columns == set(range(32))

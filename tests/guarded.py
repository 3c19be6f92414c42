"""Every kernel on drawn problems, each of its arrays next to memory that nobody may touch.

    python tests/guarded.py --draws 20000 --seed 0

draws an operator and a problem, and computes it, forward and backward, with every version of the
micro-kernel that this processor runs, on one thread and on three. Whatever array a function of the compiled
core is handed, operand, result or workspace, lies in pages of its own: a page that may be neither read nor
written follows its last byte, or precedes its first one. The rest of its pages is watched: what was written
there must still be. Memory that nobody has filled yet holds NaN. So what kernels do out of bounds is seen in
a build like any other, also where they load or store vectors by a mask, which AddressSanitizer does not look
at.

Inputs are whole numbers. Results must be the definition's, exactly, or where an operator divides, within the
bound that it states; and the same bits whichever the version, the number of threads and the place in memory.

A process of its own computes, so that the one that reports survives. If something is found, the last line is
the command that computes that draw again: draw i of a seed is always the same one. `--plant` moves the
results, or the operands, by one element, so that the last one or the first is out of bounds: that must be
found.
"""

import argparse
import faulthandler
import mmap
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from ctypes import CDLL, c_int, c_size_t, c_void_p, get_errno
from functools import wraps
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import numpy as np
from support import legal, unit
from threadpoolctl import ThreadpoolController

from refnet import draws
from refnet._core import blocks, micro_kernel
from refnet.arithmetic import reference
from refnet.arithmetic.core import KERNELS
from refnet.op import drawn_case
from refnet.ops import OPS
from refnet.shapes import Geometry, size

PAGE = mmap.PAGESIZE
PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
CLOSED = 0  # PROT_NONE
CANARY = 0xA5
# What fills memory that is handed out: NaN, and -1 as an integer. Of large workspace the beginning only.
NOTHING = 0xFF
FILLED = 1 << 18
THREADS = (1, 3)
# Two of three problems are of the operators that run the micro-kernel.
PRODUCTS = ("conv3d", "conv3d", "linear")
AVERAGES = ("average_pool3d", "global_average_pool")
MOST_ELEMENTS, MOST_MULTIPLY_ADDS = 60_000, 3_000_000
# What is left of a planted operand within its pages: all but the first element, or all but the last.
INSIDE = {True: slice(1, None), False: slice(-1)}
LINE = 500  # bytes of a line that says what is computed
FOUND = 66  # how this ends if something was out of bounds or wrong

# Files of operators call these, but hand them no array.
OTHERS = (blocks, micro_kernel)

protect = CDLL(None, use_errno=True).mprotect
protect.argtypes, protect.restype = (c_void_p, c_size_t, c_int), c_int


def address(array):
    return array.__array_interface__["data"][0]


class Fence:
    """Arrays whose pages end, or begin, where they do; in force within a `with`.

    Parameters
    ----------
    before : bool
        Whether arrays begin behind a closed page; else they end before one.
    planted : str, optional
        Which arrays lie one element further, so that one of theirs is out of bounds: "results" or "operands".
    """

    current = None
    calls = arrays = 0

    def __init__(self, before, planted=None):
        self.before, self.planted = before, planted
        self.held = {}

    def __enter__(self):
        Fence.current = self
        self.patches = ExitStack()
        for owner, name, new in (
            (np, "empty", self.result),
            (np, "zeros", self.zeros),
            (blocks, "GRAIN", sys.maxsize),  # every array by `np.empty`, also a large one
        ):
            self.patches.enter_context(patch.object(owner, name, new))
        return self

    def __exit__(self, *exception):
        Fence.current = None
        self.patches.close()
        if exception[0] is None:
            self.check()
        self.held.clear()

    def room(self, shape, dtype, shift=0):
        """Memory for such an array, `shift` elements further than it may lie."""
        dtype = np.dtype(dtype)
        needed = int(np.prod(shape)) * dtype.itemsize
        length = -(-needed // PAGE) * PAGE
        pages = np.frombuffer(mmap.mmap(-1, length + 2 * PAGE, flags=PRIVATE), np.uint8)
        shift *= dtype.itemsize
        start = PAGE - shift if self.before else PAGE + length - needed + shift
        outside = pages[start + needed : PAGE + length] if self.before else pages[PAGE:start]
        outside[:] = CANARY
        for closed in (0, PAGE + length):
            if protect(address(pages) + closed, PAGE, CLOSED):
                raise OSError(get_errno(), "mprotect")
        array = pages[start : start + needed].view(dtype).reshape(shape)
        self.held[address(array), array.nbytes] = outside
        Fence.arrays += 1
        return array

    def result(self, shape, dtype=float):
        """In place of `np.empty`."""
        if self.planted == "results":
            return self.room(shape, dtype, shift=1)
        array = self.room(shape, dtype)
        array.reshape(-1).view(np.uint8)[:FILLED] = NOTHING
        return array

    def zeros(self, shape, dtype=float):
        """In place of `np.zeros`."""
        return self.room(shape, dtype)

    def copy(self, array):
        """The same values, read-only if they were, in pages of their own; what lies in such already stays."""
        if not array.size or (address(array), array.nbytes) in self.held:
            return array
        if self.planted == "operands":
            found, inside = self.room(array.shape, array.dtype, shift=1), INSIDE[self.before]
        else:
            found, inside = self.room(array.shape, array.dtype), slice(None)
        found.reshape(-1)[inside] = array.reshape(-1)[inside]
        found.flags.writeable = array.flags.writeable
        return found

    def check(self):
        """Refuse what was written beside an array."""
        for (_, size_of), outside in self.held.items():
            at = np.flatnonzero(outside != CANARY)
            if at.size:
                far = at[0] if self.before else len(outside) - 1 - at[-1]
                side = "behind" if self.before else "before"
                raise AssertionError(
                    f"{at.size} bytes {side} an array of {size_of} bytes were written, {far} bytes from it on"
                )


def fenced(function):
    """The function of the compiled core, handed arrays within the fence that is in force."""

    @wraps(function)
    def call(*arguments):
        fence = Fence.current
        if fence is None:
            return function(*arguments)
        given = [fence.copy(a) if isinstance(a, np.ndarray) else a for a in arguments]
        found = function(*given)
        for mine, theirs in zip(given, arguments, strict=True):
            if mine is not theirs and theirs.flags.writeable:
                theirs[...] = mine
        Fence.calls += 1
        return found

    return call


def fence_kernels():
    """Put `fenced` around every function of the compiled core that a file of an operator calls."""
    files = [module for name, module in sys.modules.items() if name.startswith("refnet.arithmetic.core.")]
    called = {value for file in files for value in vars(file).values() if isinstance(value, ModuleType)}
    for module in called:
        if module.__name__.startswith("refnet._core.") and module not in OTHERS:
            for name, function in list(vars(module).items()):
                if callable(function) and not name.startswith("_"):
                    setattr(module, name, fenced(function))


def larger(rng):
    """Draw a product of more rows and columns than a micro-tile has, so that tiles of every size end it."""
    if draws.pick(rng, range(4)) == 0:
        n, d, k = (int(rng.integers(1, most)) for most in (50, 700, 90))
        return OPS["linear"], drawn_case((n, d), (k, d), *([(k,)] if draws.chance(rng) else []))
    c, k = (int(rng.integers(1, 80)) for _ in range(2))
    groups = draws.pick(rng, (1, 1, 1, 2, 3, 0))
    if not groups:  # many
        groups, c, k = int(rng.integers(12, 60)), int(rng.integers(1, 5)), int(rng.integers(1, 5))
    window = draws.window(rng)
    if draws.chance(rng):
        window = Geometry(*(tuple(v) for v in (window.kernel, (1, 1, 1), window.pad, (1, 1, 1))))
    if draws.pick(rng, range(5)) == 0:
        window = Geometry((1, 1, 1), window.stride, (0, 0, 0), (1, 1, 1))
    t, h, w = draws.room(rng, window)
    w = max(w, int(rng.integers(1, 72)))
    if draws.chance(rng):  # lines of whole micro-tiles, as far as the padding lets them
        reach = (window.kernel[2] - 1) * window.dilation[2] + 1 - 2 * window.pad[2]
        w = max(w % 2 + 1, (draws.pick(rng, (7, 8, 14, 17, 28)) - 1) * window.stride[2] + reach)
    attrs = {"stride": window.stride, "pad": window.pad, "dilation": window.dilation, "groups": groups}
    bias = [(k * groups,)] if draws.chance(rng) else []
    x = draws.pick(rng, draws.BATCHES), c * groups, t, h, w
    return OPS["conv3d"], drawn_case(x, (k * groups, c, *window.kernel), *bias, **attrs)


def proposed(rng):
    """Draw an operator and a problem of any size."""
    kind = draws.pick(rng, range(3))
    if kind == 0:
        return larger(rng)
    names = PRODUCTS if kind == 1 else tuple(KERNELS)
    op = OPS[names[int(rng.integers(len(names)))]]
    return op, op.propose(rng)


def drawn(rng):
    """Draw an operator and a problem that is small enough to be computed a dozen times."""
    while True:
        op, case = proposed(rng)
        elements = sum(map(size, case.shapes)) + size(op.output_shape(case.shapes, case.attrs))
        work = op.cost(*case.shapes, itemsize=1, **case.attrs).multiply_adds
        if elements <= MOST_ELEMENTS and work <= MOST_MULTIPLY_ADDS:
            return op, case


def values(op, case, dtype, rng):
    """Inputs and dy: whole numbers up to 4, or what an input may hold."""
    free = [rng.integers(-4, 5, shape).astype(dtype) for shape in case.shapes]
    arrays = [legal(op, case, i, a, rng) for i, a in enumerate(free)]
    shape = op.output_shape(case.shapes, case.attrs)
    return arrays, rng.integers(-4, 5, shape).astype(dtype)


def computed(arithmetic, op, case, arrays, dy):
    """(y, *gradients)."""
    y, context = arithmetic[op.name].forward(*arrays, **case.attrs)
    needs = tuple(op.domain(i).gradient for i in range(len(arrays)))
    return y, *arithmetic[op.name].backward(dy, context, needs)


def bounds(op, case, arrays, dy):
    """How far two results, of which each is rounded in the dtype of dy, are apart; 0 where nothing is."""
    if not (op.divides or op.name in AVERAGES):
        return [0] * (1 + len(arrays))
    needs = tuple(op.domain(i).gradient for i in range(len(arrays)))
    wide = [a.astype("float64") if a.dtype.kind == "f" else a for a in arrays]
    found = (
        op.magnitude(*wide, **case.attrs),
        *op.gradient_magnitude(dy.astype("float64"), *wide, needs=needs, **case.attrs),
    )
    u = unit(dy.dtype)
    return [0 if m is None else 2 * (n := (m.terms + 1) * u) / (1 - n) * m.sum_abs for m in found]


def judge(ours, theirs, limits):
    """Refuse a result that is further from the definition's than its limit; NaN is."""
    for i, (mine, other, limit) in enumerate(zip(ours, theirs, limits, strict=True)):
        assert (mine is None) == (other is None)
        if mine is not None:
            off = np.abs(mine - other)
            assert (off <= limit).all(), f"result {i} is off by up to {np.max(off)}"


class Ledger:
    """A file in which a process says what it computes, for whoever finds it dead; and what it has done."""

    def __init__(self, path, versions):
        self.file = os.open(path, os.O_WRONLY)
        self.versions, self.draws, self.filters = versions, Counter(), set()

    def begin(self, text):
        os.pwrite(self.file, text.encode()[:LINE].ljust(LINE), 0)

    def end(self, op, case):
        self.draws[op.name] += 1
        if op.name in PRODUCTS:
            self.filters.add(case.shapes[1][0] // case.attrs.get("groups", 1))

    def summary(self, seconds):
        counts = ", ".join(f"{name} {count}" for name, count in self.draws.most_common())
        return (
            f"{self.draws.total()} draws in {seconds:.0f} s, each with {', '.join(self.versions)} on "
            f"{' and '.join(map(str, THREADS))} threads: {Fence.calls} calls of kernels, "
            f"{Fence.arrays} arrays of their own pages, {len(self.filters)} numbers of filters "
            f"in a group\n{counts}\nnothing was out of bounds, nothing was wrong"
        )


def attempt(seed, index, planted, ledger):
    """Compute draw `index` of the seed with every version, on each number of threads."""
    rng = np.random.default_rng((seed, index))
    op, case = drawn(rng)
    dtype = ("float32", "float64")[int(rng.integers(2))]
    arrays, dy = values(op, case, dtype, rng)
    wide = [a.astype("float64") if a.dtype.kind == "f" else a for a in arrays]
    theirs = computed(reference, op, case, wide, dy.astype("float64"))
    limits, bits = bounds(op, case, arrays, dy), None
    runs = [(version, threads) for version in ledger.versions for threads in THREADS]
    for turn, (version, threads) in enumerate(runs):
        before = (index + turn) % 2 == 1
        where = "before" if before else "behind"
        ledger.begin(
            f"draw {index}: {op.name} {case.name}, {dtype}, {version}, {threads} threads, page {where}"
        )
        micro_kernel.use(version)
        with LIBRARIES.limit(limits=threads, user_api="openmp"), Fence(before, planted) as fence:
            given = [fence.copy(a) for a in arrays]
            found = computed(KERNELS, op, case, given, fence.copy(dy))
            judge(found, theirs, limits)
            mine = [a.tobytes() for a in found if a is not None]
            assert bits in (None, mine), "other bits than those of the first version on one thread"
            assert all(map(np.array_equal, given, arrays)), "an input was changed"
            bits = mine
    ledger.end(op, case)


def compute(options):
    """Compute the draws, in this process."""
    faulthandler.enable()
    fence_kernels()
    ledger, start = Ledger(options.ledger, options.versions), time.monotonic()
    for index in range(options.first, options.first + options.draws):
        attempt(options.seed, index, options.plant, ledger)
        if time.monotonic() - start > options.time:
            break
    print(ledger.summary(time.monotonic() - start))


def main():
    every = micro_kernel.versions()
    parser = argparse.ArgumentParser(description="Every kernel on drawn problems, between closed pages.")
    parser.add_argument("--draws", type=int, default=20_000, help="how many problems at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the number of the first draw")
    parser.add_argument(
        "--time", type=float, default=float("inf"), help="seconds after which no draw is begun"
    )
    parser.add_argument("--plant", choices=("results", "operands"), help="move these by an element")
    parser.add_argument("--versions", nargs="+", choices=every, default=every, help="of the micro-kernel")
    parser.add_argument("--ledger", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ledger:
        compute(options)
        return
    with tempfile.NamedTemporaryFile() as file:
        ended = subprocess.run([sys.executable, *sys.argv, "--ledger", file.name]).returncode
        if ended == 0:
            return
        line = Path(file.name).read_text().strip()
    how = signal.Signals(-ended).name if ended < 0 else f"exit code {ended}"
    again = ["python", "tests/guarded.py", "--draws=1", f"--seed={options.seed}"]
    again += [f"--plant={options.plant}"] if options.plant else []
    if line:
        again.append(f"--first={line.split()[1].removesuffix(':')}")
    print(f"{how}: {line}\nagain: {shlex.join(again)}", file=sys.stderr)
    sys.exit(FOUND)


LIBRARIES = ThreadpoolController()

if __name__ == "__main__":
    main()

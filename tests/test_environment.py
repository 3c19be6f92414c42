"""Where threads flush subnormal numbers or round another way, bits stay the same, and so does the mode."""

import ctypes
import ctypes.util
import os
import platform
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import bundles
import numpy as np
import pytest
from support import every_arithmetic, every_case, reals

import refnet

# Where glibc's fenv_t has the control bits of vector units, and which of them flush or round (C11, 7.6).
LAYOUTS = {
    "x86_64": (28, 32, {"flush": 0x8040, "up": 0x4000, "down": 0x2000, "zero": 0x6000}),
    "aarch64": (0, 8, {"flush": 1 << 24, "up": 1 << 22, "down": 2 << 22, "zero": 3 << 22}),
}
RAISED = 0x3F  # what has happened, beside how it is to be done, in x86's
if platform.machine() not in LAYOUTS or platform.libc_ver()[0] != "glibc":
    pytest.skip("where this C library keeps the environment is not known here", allow_module_level=True)
AT, SIZE, MODES = LAYOUTS[platform.machine()]
every_mode = pytest.mark.parametrize("mode", MODES)
LIBM = ctypes.CDLL(ctypes.util.find_library("m"))


def environment():
    found = (ctypes.c_ubyte * SIZE)()
    assert LIBM.fegetenv(found) == 0
    return found


def control():
    """How this thread rounds and whether it flushes."""
    return int.from_bytes(bytes(environment()[AT : AT + 4]), "little") & ~RAISED


@contextmanager
def in_mode(mode):
    """Set a mode for this thread; it must still have it in the end."""
    before, changed = environment(), environment()
    wanted = control() | MODES[mode]
    changed[AT : AT + 4] = wanted.to_bytes(4, "little")
    assert LIBM.fesetenv(changed) == 0
    try:
        yield
        assert control() == wanted
    finally:
        assert LIBM.fesetenv(before) == 0


def bits(kernel, arrays, dy, attrs):
    y, context = kernel.forward(*arrays, **attrs)
    return [a.tobytes() for a in (y, *kernel.backward(dy, context)) if a is not None]


def problem(op, case, dtype, exponent):
    """Arrays and dy, so small that products are subnormal numbers, or as drawn."""
    arrays = [
        np.ldexp(a, exponent) if op.domain(i).gradient else a for i, a in enumerate(reals(op, case, dtype))
    ]
    shape = op.output_shape(tuple(a.shape for a in arrays), case.attrs)
    return arrays, np.ldexp(np.random.default_rng(5).standard_normal(shape), exponent).astype(dtype)


@every_mode
@every_arithmetic
@every_case
def test_no_mode_changes_a_bit(op, case, arithmetic, mode):
    kernel = arithmetic[op.name]
    for dtype, exponent in (("float64", 0), ("float64", -536), ("float32", 0), ("float32", -74)):
        arrays, dy = problem(op, case, dtype, exponent)
        expected = bits(kernel, arrays, dy, case.attrs)
        with in_mode(mode):
            ours = bits(kernel, arrays, dy, case.attrs)
        assert ours == expected, (dtype, exponent)


def test_the_modes_do_what_they_say():
    """What the tests above would see, if a kernel kept its caller's environment."""
    tiny, half = np.array([2.0**-1040]), np.array([0.5])
    third = {}
    for mode in MODES:
        with in_mode(mode):
            third[mode] = (np.ones(1) / np.array([3.0]))[0]
            assert ((tiny * half)[0] == 0) == (mode == "flush")
    assert third["up"] > third["down"] == third["zero"]


@every_mode
@pytest.mark.parametrize("name", refnet.arithmetic.ARITHMETICS)
def test_a_bundle_is_made_verified_and_compared_in_any_mode(tmp_path, name, mode):
    blob = np.ldexp(np.random.default_rng(0).standard_normal((1, 3, 1, 32, 32)), -130)
    np.save(tmp_path / "clip.npy", blob)
    recipe = refnet.golden.Recipe(
        "resnet18_conv4",
        blob.shape,
        {"width_per_group": 4, "time_kernel": 1},
        dtype="float32",
        arithmetic=name,
    )

    def make(out):
        selection = refnet.clip.Selection(frames=1)
        found, pixels = refnet.golden.clip_recipe(tmp_path / "clip.npy", selection, recipe)
        assert np.count_nonzero(pixels.view(np.uint32)) == pixels.size, "subnormal numbers are kept"
        refnet.golden.make(out, found, pixels=pixels)

    make(tmp_path / "a")
    with in_mode(mode):
        make(tmp_path / "b")
        verified = refnet.golden.verify(tmp_path / "a")
        compared = refnet.golden.diff(tmp_path / "a", tmp_path / "b")
    assert all(finding.equal for finding in verified + compared)
    assert (tmp_path / "a" / "manifest.json").read_bytes() == (tmp_path / "b" / "manifest.json").read_bytes()


PROCESS = """
import sys
from contextlib import nullcontext
from hashlib import sha256
import numpy as np
sys.path.insert(0, {folder!r})
import refnet
from test_environment import in_mode
net = refnet.build("resnet18_conv4", input=(1, 3, 3, 12, 12), freeze_at=0)
given = refnet.fill.inputs(net, dtype="float32") | refnet.fill.params(net, dtype="float32")
given["data"] = np.ldexp(given["data"], -140)
dy = refnet.fill.output_gradients(net, dtype="float32")
with in_mode({mode!r}) if {mode!r} else nullcontext():  # the kernels' threads begin like this one
    run = refnet.forward(net, given)
    grads = refnet.backward(run, dy)
values = list((run.blobs | dict(grads)).values())
subnormal = sum(int(((abs(v) < 2.0**-126) & (v != 0)).sum()) for v in values)
print(sha256(b"".join(v.tobytes() for v in values)).hexdigest(), subnormal)
"""


def test_threads_that_are_started_in_a_mode_compute_the_same_bits():
    found = {}
    for mode in (None, "flush", "up"):
        script = PROCESS.format(folder=str(Path(__file__).parent), mode=mode)
        command = [sys.executable, "-c", script]
        env = os.environ | {"OMP_NUM_THREADS": "3"}
        found[mode] = subprocess.run(
            command, env=env, capture_output=True, text=True, check=True
        ).stdout.split()
    assert found[None] == found["flush"] == found["up"]
    assert int(found[None][1]) > 1000, "values that would be flushed"


@every_mode
def test_fills_do_not_depend_on_the_mode(mode):
    net = refnet.build("resnet18_conv4", input=(1, 3, 2, 32, 32))
    expected = {name: value.tobytes() for name, value in refnet.fill.params(net, seed=3).items()}
    with in_mode(mode):
        ours = refnet.fill.params(net, seed=3)
    assert {name: value.tobytes() for name, value in ours.items()} == expected


@every_mode
@pytest.mark.parametrize("arithmetic", bundles.ARITHMETICS)
@pytest.mark.parametrize("name", bundles.NETS)
def test_no_mode_changes_a_pinned_hash(name, arithmetic, mode):
    with in_mode(mode):
        found = {dtype: bundles.hashes(arithmetic, name, dtype) for dtype in bundles.DTYPES}
    assert found == bundles.right()[arithmetic][name]


@every_mode
def test_clips_do_not_depend_on_the_mode(tmp_path, mode):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).integers(0, 256, (1, 9, 7, 3), np.uint8))

    def blobs():
        return [
            refnet.clip.load(tmp_path / "a.npy", frames=1, size=(4, 5), resize=resize).tobytes()
            for resize in ("linear", "area")
        ]

    expected = blobs()
    with in_mode(mode):
        ours = blobs()
    assert ours == expected

"""A name for a net, an array for a dict, a net for a name: one line that says what was wrong, everywhere."""

import inspect
import re

import numpy as np
import pytest

import refnet
from refnet import certify, fill, golden, gradcheck, networks, trace
from refnet.arithmetic import Arithmetic
from refnet.arrays import dtype_name
from refnet.errors import RefnetError, ShapeError, UnknownNameError
from refnet.interop import caffe2, jax, onnx, torch
from refnet.networks import fold, fpn3d, inflate, resnet3d, roi_head

X = np.ones((1, 1, 1, 1, 1))
NET = refnet.Net()
NET.output(NET.add("relu", "y", (NET.input("data", X.shape),)))
BODY = resnet3d.body((1, 3, 1, 32, 32), (1, 1, 1), (4, 4, 4, 4), width_per_group=1)
GIVEN = {"data": X}
RUN = refnet.forward(NET, GIVEN)
RECIPE = golden.Recipe("resnet18_conv4", (1, 3, 1, 32, 32))

# What may stand where; of the kinds that a function does not take, each is refused.
KINDS = {"net": NET, "name": "resnet18_conv4", "mapping": GIVEN, "array": X, "number": 3.5, "nothing": None}
# By function: arguments that are right, and of those that are tried, the kinds that are taken.
CALLS = {
    refnet.build: ({"architecture": "resnet18_conv4"}, {"architecture": {"name"}, "input": {"nothing"}}),
    refnet.forward: (
        {"net": NET, "given": GIVEN},
        {"net": {"net"}, "given": {"mapping"}, "arithmetic": set(), "keep": set()},
    ),
    refnet.backward: (
        {"run": RUN, "output_gradients": {"y": X}},
        {"run": set(), "output_gradients": set()},
    ),
    fill.params: ({"net": BODY}, {"net": {"net"}, "seed": set(), "dtype": set()}),
    fill.inputs: ({"net": NET}, {"net": {"net"}, "seed": set(), "dtype": set()}),
    fill.output_gradients: ({"net": NET}, {"net": {"net"}, "seed": set(), "dtype": set()}),
    fill.gradients_of: ({"shapes": {"y": (1,)}}, {"shapes": set(), "seed": set(), "dtype": set()}),
    fill.uniform: (
        {"name": "x", "shape": (2,), "seed": 0},
        {"name": {"name"}, "shape": set(), "seed": set()},
    ),
    fill.normal: (
        {"name": "x", "shape": (2,), "seed": 0},
        {"name": {"name"}, "shape": set(), "seed": set()},
    ),
    trace.trace: ({"net": NET}, {"net": {"net"}}),
    trace.explain: ({"net": NET, "name": "y"}, {"net": {"net"}, "name": set()}),
    trace.explain_all: ({"net": NET}, {"net": {"net"}}),
    trace.receptive_fields: ({"net": NET}, {"net": {"net"}, "source": set()}),
    trace.backward_multiply_adds: ({"net": NET}, {"net": {"net"}}),
    caffe2.blobs: ({"run": RUN}, {"run": set()}),
    caffe2.names: ({"net": NET}, {"net": {"net"}}),
    fold.fold: ({"net": NET, "params": {}}, {"net": {"net"}, "params": set()}),
    inflate.inflate: (
        {"w": np.ones((1, 1, 1, 1)), "time_kernel": 3},
        {"w": {"array"}, "time_kernel": set(), "mode": set()},
    ),
    inflate.inflate_params: (
        {"params": {}, "net": NET},
        {"params": {"mapping"}, "net": {"net"}, "mode": set()},
    ),
    fpn3d.fpn: ({"body": BODY}, {"body": set(), "dim": set(), "time_kernel": set()}),
    roi_head.head: ({"body": BODY}, {"body": {"net"}, "rois": set(), "link": set(), "transformation": set()}),
    resnet3d.body: (
        {"input": (1, 3, 1, 32, 32)},
        {
            "input": set(),
            "block_counts": set(),
            "feat_dims": set(),
            "transformation": set(),
            "freeze_at": set(),
        },
    ),
    gradcheck.check_net: (
        {"net": NET, "blobs": GIVEN},
        {
            "net": {"net"},
            "blobs": {"mapping"},
            "arithmetic": set(),
            "tensors": {"mapping", "nothing"},
            "seed": set(),
        },
    ),
    gradcheck.check_op: (
        {"name": "relu", "draws": 0},
        {"name": set(), "arithmetic": set(), "seed": set(), "draws": set(), "dtypes": set(), "kinds": set()},
    ),
    gradcheck.check: (
        {"f": np.sin, "vjp": lambda dy, x: (dy * np.cos(x),), "arrays": [X]},
        {"f": set(), "vjp": set(), "arrays": set(), "seed": set()},
    ),
    certify.certify: (
        {"net": NET, "given": GIVEN, "candidate": {"y": X}},
        {
            "net": {"net"},
            "given": {"mapping"},
            "candidate": {"mapping"},
            "output_gradients": {"nothing", "mapping"},
            "gradients": {"nothing", "mapping"},
            "blob_gradients": {"nothing", "mapping"},
            "accumulate": set(),
            "store": set(),
            "operands": set(),
            "algorithm": set(),
            "axes": set(),
            "delta": set(),
        },
    ),
    certify.check: (
        {"op": "relu", "arrays": (X,), "y": X},
        {"op": set(), "arrays": set(), "accumulate": set()},
    ),
    certify.examine: (
        {"op": "relu", "kernel": np.abs, "draws": 0},
        {
            "op": set(),
            "kernel": set(),
            "seed": set(),
            "draws": set(),
            "dtype": set(),
            "claim": {"nothing"},
            "title": {"name", "nothing"},
        },
    ),
    certify.read: ({"path": "missing.npz", "net": NET}, {"path": set(), "net": set()}),
    refnet.clip.load: (
        {"path": "missing.mp4"},
        {"path": set(), "frames": set(), "size": set(), "resize": set(), "dtype": set()},
    ),
    golden.make: (
        {"out": "never", "recipe": RECIPE},
        {"out": {"name"}, "recipe": set(), "params": {"nothing"}, "only": {"nothing"}},
    ),
    golden.clip_recipe: (
        {"path": "missing.mp4", "selection": refnet.clip.Selection(), "recipe": RECIPE},
        {"path": set(), "selection": set(), "recipe": set()},
    ),
    trace.freeze_points: (
        {"build": lambda at: BODY, "points": [], "given": GIVEN, "output_gradient": fill.output_gradients},
        {"build": set(), "points": {"mapping", "array", "name"}, "given": set(), "output_gradient": set()},
    ),
    golden.Bundle: ({"path": "missing"}, {"path": set()}),
    golden.verify: ({"path": "missing"}, {"path": set()}),
    golden.against: ({"path": "missing"}, {"path": set(), "arithmetic": set()}),
    golden.causes: ({"a": None, "b": None}, {"a": set(), "b": set()}),
    golden.statistics: ({"bundle": "missing"}, {"bundle": set()}),
    golden.params_recipe: (
        {"path": "missing", "recipe": RECIPE},
        {"path": set(), "recipe": set()},
    ),
    golden.save: (
        {"out": "never", "run": RUN},
        {"out": {"name"}, "run": set(), "gradients": {"nothing"}, "only": {"nothing"}, "store": {"nothing"}},
    ),
    golden.diff: ({"a": "missing", "b": "missing"}, {"a": set(), "b": set()}),
    torch.weights: ({"module": None, "net": NET, "names": {}}, {"net": {"net"}}),
    torch.training_step: ({"module": None, "inputs": (), "net": NET, "names": {}}, {"net": {"net"}}),
    torch.compare: ({"module": None, "inputs": (), "net": NET}, {"net": {"net"}}),
    torch.check_torch: ({"module": None, "inputs": (), "net": NET}, {"net": {"net", "nothing"}}),
    onnx.compare: ({"model": None, "inputs": (), "net": NET}, {"net": {"net"}}),
    jax.compare: ({"function": None, "given": {}, "net": NET}, {"net": {"net"}}),
    Arithmetic: ({"name": "x", "kernels": {}}, {"kernels": set()}),
}
TRIED = [
    pytest.param(function, name, kind, id=f"{function.__module__}.{function.__name__} {name} {kind}")
    for function, (_, tried) in CALLS.items()
    for name, taken in tried.items()
    for kind in KINDS
    if kind not in taken
]


@pytest.mark.parametrize(("function", "name", "kind"), TRIED)
def test_another_kind_is_refused_in_a_line(function, name, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    right, _ = CALLS[function]
    with pytest.raises(RefnetError) as caught:
        function(**right | {name: KINDS[kind]})
    said = str(caught.value)
    assert "\n" not in said and len(said) < 400
    assert not any(tmp_path.iterdir())


def test_every_function_of_the_public_face_is_tried():
    """But those that take files or other libraries' objects alone."""
    faces = (refnet, fill, trace, gradcheck, certify, golden, networks)
    public = {
        found
        for face in faces
        for name in getattr(face, "__all__", [])
        if inspect.isfunction(found := getattr(face, name)) and found.__module__.startswith("refnet")
    }
    assert {found.__qualname__ for found in public - CALLS.keys()} == {
        *("first_difference", "ulp_distance"),
    }


@pytest.mark.parametrize("given", [np.zeros((1, 3, 2, 8, 8)), np.float32(3)], ids=["an array", "a number"])
def test_an_array_for_its_shape_is_named_as_such(given):
    said = f"is an? {type(given).__name__}: expected a shape, as its own, {re.escape(str(given.shape))}$"
    with pytest.raises(ShapeError, match=f"^data {said}"):
        refnet.build("resnet18_conv4", input=given)
    with pytest.raises(ShapeError, match=f"^x {said}"):
        fill.uniform("x", given, 0)


SINGLE = ("float32", np.float32, np.dtype("f4"), "f4", ">f4", np.dtype(">f4"), "single", X.astype("f4").dtype)
DOUBLE = ("float64", np.float64, np.dtype("f8"), "f8", float, "double", "d", np.double)


@pytest.mark.parametrize("dtype", SINGLE)
def test_whatever_numpy_takes_for_float32_is_float32(dtype):
    assert dtype_name(dtype) == "float32"
    assert {a.dtype for a in fill.params(BODY, dtype=dtype).values()} == {np.dtype("f4")}
    assert fill.inputs(NET, dtype=dtype)["data"].dtype == np.float32
    assert fill.output_gradients(NET, dtype=dtype)["y"].dtype == np.float32
    assert golden.Recipe("resnet18_conv4", (1, 3, 1, 32, 32), dtype=dtype).dtype == "float32"
    single = X.astype("f4")
    assert certify.check("relu", (single,), single, store=dtype, accumulate=dtype, operands=dtype).ok


@pytest.mark.parametrize("dtype", DOUBLE)
def test_whatever_numpy_takes_for_float64_is_float64(dtype):
    assert dtype_name(dtype) == "float64"
    assert fill.inputs(NET, dtype=dtype)["data"].dtype == np.float64
    report = certify.certify(NET, GIVEN, {"y": X}, store=dtype, accumulate=dtype, operands=dtype)
    assert report.ok and report.facts["store"] == "float64"


def test_a_check_takes_one_dtype_or_several():
    for dtypes in (np.float32, ["f4"], "float32", (np.dtype("f4"),)):
        assert gradcheck.check_op("relu", draws=0, dtypes=dtypes).facts["dtypes"] == ["float32"]
    assert gradcheck.check_op("relu", draws=0, kinds="reals").ok


@pytest.mark.parametrize(
    "dtype", [None, int, "int8", "float16", "floaty", 3, X, object, complex, np.void, "f4,f4"], ids=repr
)
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(UnknownNameError, match="dtype") as caught:
        fill.params(BODY, dtype=dtype)
    assert "\n" not in str(caught.value) and {"float32", "float64"} <= set(
        re.findall(r"float\d\d", str(caught.value))
    )


@pytest.mark.parametrize("dtype", ["f16", "int", int, "i4", "f2", "g", "float128", np.longdouble], ids=repr)
def test_what_was_typed_is_named_and_what_numpy_takes_it_for(dtype):
    """In letters f16 has 16 bytes; where NumPy has no such format, the name alone is unknown."""
    typed = dtype if isinstance(dtype, str) else dtype.__name__
    try:
        meant = np.dtype(dtype).name
    except TypeError:
        meant = typed
    said = f"unknown dtype '{typed}': " + (f"it is {meant} to NumPy; " if meant != typed else "")
    for call in (lambda: fill.params(BODY, dtype=dtype), golden.Recipe("x", (1,), dtype=dtype).structure):
        with pytest.raises(UnknownNameError) as caught:
            call()
        assert str(caught.value).startswith(said)


def test_a_clip_and_a_kernel_take_dtypes_too(tmp_path):
    file = tmp_path / "clip.npy"
    np.save(file, np.ones((1, 3, 1, 4, 4)))
    assert refnet.clip.load(file, frames=1, dtype=np.float32).dtype == np.float32
    report = certify.examine("relu", lambda x: np.maximum(x, 0), draws=0, dtype=np.dtype("f8"))
    assert report.facts["dtype"] == "float64"

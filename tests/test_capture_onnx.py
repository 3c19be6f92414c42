"""`capture` of ONNX models: what ONNX Runtime gives for each of them, by name."""

import numpy as np
import pytest
from support import peer

import refnet
from refnet.check import Report
from refnet.errors import DTypeError, FileError, UnknownNameError, ValueRangeError
from refnet.interop import onnx as interop
from refnet.interop.onnx import capture, compare
from refnet.net import Net


@pytest.fixture(scope="module")
def onnx():
    peer("onnxruntime")
    return peer("onnx")


SHAPES = {"stem.weight": (4, 3, 3, 3, 3), "stem.bias": (4,), "next.weight": (4, 4, 1, 3, 3)}
KINDS = {"float32": 1, "float16": 10, "float64": 11}


def weights(dtype="float32"):
    rng = np.random.default_rng(0)
    return {name: (rng.standard_normal(shape) / 4).astype(dtype) for name, shape in SHAPES.items()}


def small(onnx, dtype="float32", shape=(2, 3, 2, 6, 6)):
    """As exporters write it: paths for names, a constant as a node."""
    helper, kind = onnx.helper, KINDS[dtype]
    held = weights(dtype)
    scale = onnx.numpy_helper.from_array(np.full((4, 1, 1, 1), 0.5, dtype))
    nodes = [
        helper.make_node("Conv", ["x", "stem.weight", "stem.bias"], ["/stem/Conv_output_0"], pads=[1] * 6),
        helper.make_node("Relu", ["/stem/Conv_output_0"], ["/relu/Relu_output_0"]),
        helper.make_node("Shape", ["/relu/Relu_output_0"], ["/Shape_output_0"]),
        helper.make_node("Conv", ["/relu/Relu_output_0", "next.weight"], ["conv.2"], pads=[0, 1, 1, 0, 1, 1]),
        helper.make_node("Constant", [], ["/Constant_output_0"], value=scale),
        helper.make_node("Mul", ["conv.2", "/Constant_output_0"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", kind, list(shape))],
        [helper.make_tensor_value_info("y", kind, None)],
        [onnx.numpy_helper.from_array(value, name) for name, value in held.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def clip(dtype="float32", shape=(2, 3, 2, 6, 6)):
    return np.random.default_rng(1).standard_normal(shape).astype(dtype)


def expected(dtype="float64"):
    """The values in float64, by NumPy."""
    held, x = weights(), clip()
    net = Net()
    names = [net.input("x", x.shape), *(net.param(name, shape) for name, shape in SHAPES.items())]
    conv1 = net.add("conv3d", "conv1", (names[0], names[1], names[2]), pad=(1, 1, 1))
    relu1 = net.add("relu", "relu1", (conv1,))
    net.output(net.add("conv3d", "conv2", (relu1, names[3]), pad=(0, 1, 1)))
    given = {name: value.astype("float64") for name, value in (held | {"x": x}).items()}
    blobs = refnet.forward(net, given).blobs
    return {name: blobs[name] for name in ("conv1", "relu1", "conv2")} | {"y": blobs["conv2"] / 2}


@pytest.mark.parametrize("optimization", ["disable_all", "enable_basic", "enable_extended", "enable_all"])
def test_every_intermediate_is_there(onnx, optimization):
    """By their own names, shapes and integers left out; the model is left as it was."""
    model = small(onnx)
    before = model.SerializeToString()
    found = capture(model, clip(), optimization=optimization)
    assert model.SerializeToString() == before
    own = {"stem_Conv_output_0": "conv1", "relu_Relu_output_0": "relu1", "conv_2": "conv2", "y": "y"}
    assert set(found.blobs) == set(own)
    for name, node in own.items():
        np.testing.assert_allclose(found.blobs[name], expected()[node], rtol=0, atol=1e-5)
        assert found.blobs[name].dtype == np.float32
    assert set(found.given) == {"x", "stem_weight", "stem_bias", "next_weight", "Constant_output_0"}
    assert (found.given["next_weight"] == weights()["next.weight"]).all()
    assert not found.gradients and not found.blob_gradients and not found.output_gradients


def test_the_runtime_itself_returns_the_same(onnx):
    ort = peer("onnxruntime")
    session = ort.InferenceSession(small(onnx).SerializeToString(), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": clip()})
    names = {"y": "scaled", "stem.weight": "conv1_w", "/stem/Conv_output_0": "conv1", "x": "data"}
    found = capture(small(onnx), {"x": clip()}, names)
    assert set(found.blobs) == {"conv1", "scaled"} and set(found.given) == {"data", "conv1_w"}
    np.testing.assert_allclose(found.blobs["scaled"], y, rtol=0, atol=1e-6)
    assert (found.given["data"] == clip()).all()


def test_a_file_and_other_formats(onnx, tmp_path):
    path = tmp_path / "small.onnx"
    onnx.save(small(onnx), path)
    for model in (path, str(path)):
        assert (capture(model, clip()).blobs["y"] == capture(small(onnx), clip()).blobs["y"]).all()
    half = capture(small(onnx, "float16"), clip())
    assert half.blobs["y"].dtype == np.float32
    assert (half.given["x"] == clip().astype("float16")).all()
    assert (half.blobs["y"] == half.blobs["y"].astype("float16")).all()


def test_names_that_are_no_text_are_refused(onnx, tmp_path):
    content = small(onnx).SerializeToString()
    (tmp_path / "m.onnx").write_bytes(content.replace(b"conv.2", b"conv\xff2"))
    with pytest.raises(FileError, match=r"m.onnx has a tensor named b'conv\\xff2': expected UTF-8"):
        capture(tmp_path / "m.onnx", clip())


def test_what_does_not_fit_is_said(onnx, tmp_path):
    (tmp_path / "text.onnx").write_text("no model at all")
    model, x = small(onnx), clip()
    cases = [
        (model, x, {"conv9": "conv1"}, {}, UnknownNameError, "conv9"),
        (model, x, {"x": "data", "y": "data"}, {}, ValueRangeError, "x and y are both data"),
        (model, [x, x], None, {}, ValueRangeError, "2 inputs are given: expected x"),
        (model, {"z": x}, None, {}, UnknownNameError, "z"),
        (model, {"x": "pixels"}, None, {}, DTypeError, "x is"),
        (model, x[:, :2], None, {}, ValueRangeError, "ONNX Runtime does not run the model"),
        (model, x, None, {"optimization": "all"}, UnknownNameError, "optimization"),
        (b"model", x, None, {}, DTypeError, "model is a bytes"),
        (tmp_path / "none.onnx", x, None, {}, FileError, "No such file"),
        (tmp_path / "text.onnx", x, None, {}, FileError, "text.onnx is no ONNX model"),
        (model, x, ["y"], {}, DTypeError, "names"),
    ]
    for subject, inputs, names, options, error, words in cases:
        with pytest.raises(error, match=words) as caught:
            capture(subject, inputs, names, **options)
        assert "\n" not in str(caught.value)


# Compared.


@pytest.fixture
def certified(monkeypatch):
    """What `compare` hands to `certify`."""
    calls = []

    def certify(net, given, candidate, **claims):
        calls.append((net, given, candidate, claims))
        return Report(title="", verdicts={})

    monkeypatch.setattr(interop, "certify", certify)
    return calls


def net_of_two(names=("stem_Conv_output_0", "conv_2")):
    net = Net()
    x = net.input("data", (2, 3, 2, 6, 6))
    w, b = net.param("first_w", SHAPES["stem.weight"]), net.param("first_b", (4,))
    y = net.add("relu", "relu_1", (net.add("conv3d", names[0], (x, w, b), pad=(1, 1, 1)),))
    w = net.param("second_w", SHAPES["next.weight"])
    net.output(net.add("conv3d", names[1], (y, w), pad=(0, 1, 1)))
    return net


def test_names_are_completed(onnx, certified):
    """Equal ones, inputs in order, and parameters by the operators that read them."""
    compare(small(onnx), net_of_two(), clip(), store="float16")
    names = {"/stem/Conv_output_0": "conv1", "conv.2": "conv2", "/relu/Relu_output_0": "relu_1"}
    compare(small(onnx), net_of_two(("conv1", "conv2")), clip(), names=names)
    for index, (_, given, candidate, claims) in enumerate(certified):
        assert set(given) == {"data", "first_w", "first_b", "second_w"}
        assert (given["first_b"] == weights()["stem.bias"]).all() and (given["data"] == clip()).all()
        assert set(candidate.blobs) == ({*names.values()} if index else {"stem_Conv_output_0", "conv_2"})
        assert claims == ({} if index else {"store": "float16"})


def test_other_weights_can_be_given_and_named(onnx, certified):
    names = {"/stem/Conv_output_0": "conv1", "conv.2": "conv2", "stem.weight": "second_w"}
    other = {"first_w": np.ones(SHAPES["stem.weight"], "float32")}
    compare(small(onnx), net_of_two(("conv1", "conv2")), clip(), names=names, given=other)
    assert (certified[0][1]["first_w"] == 1).all()
    assert (certified[0][1]["second_w"] == weights()["stem.weight"]).all()


# Judged.


@pytest.mark.parametrize("optimization", ["disable_all", "enable_all"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_model_is_consistent(onnx, optimization, dtype):
    net = net_of_two(("conv1", "conv2"))
    names = {"/stem/Conv_output_0": "conv1", "conv.2": "conv2", "/relu/Relu_output_0": "relu_1"}
    claims = {"store": dtype, "operands": dtype, "names": names, "optimization": optimization}
    if dtype == "float16":  # which the runtime computes in float32, and rounds what is an output
        claims["fused"] = [("conv1", "relu_1", "conv2")]
    report = compare(small(onnx, dtype), net, clip(), **claims)
    assert report.ok and list(report.verdicts) == ["conv1", "relu_1", "conv2"], report
    other = {"second_w": weights(dtype)["next.weight"][..., ::-1]}
    report = compare(small(onnx, dtype), net, clip(), given=other, **claims)
    assert report.first_failure == "conv2"
    assert dtype == "float16" or report.verdicts["conv2"].hypothesis == "kernel flipped W"

"""Arrays of other libraries are taken where that is exact, and refused in one line where it is not."""

import inspect
import re
import sys
from types import ModuleType

import numpy as np
import pytest
import scipy.sparse
from support import peer

import refnet
from refnet import interop
from refnet.arithmetic import core
from refnet.arrays import at_the_door, stored_in, ulp_distance
from refnet.errors import DTypeError, NotInstalledError, ShapeError, UnknownNameError
from refnet.networks.fold import fold
from refnet.networks.inflate import inflate, inflate_params

SHAPE = (1, 2, 2, 3, 4)


def net(time_kernel=3):
    return refnet.networks.resnet3d.body(
        (1, 3, 2, 16, 16), (1, 1), (4, 4, 8), width_per_group=2, freeze_at=0, time_kernel=time_kernel
    )


def refused(array, *words):
    """Assert that every door of refnet refuses an array in one line with these words."""
    small = net()
    given = refnet.fill.params(small) | refnet.fill.inputs(small)
    run, dy = refnet.forward(small, given), refnet.fill.output_gradients(small)
    _, context = core.relu.forward(np.ones(SHAPE))
    doors = {
        "relu x": lambda: core.relu.forward(array),
        "relu dy": lambda: core.relu.backward(array, context),
        "data": lambda: refnet.forward(small, given | {"data": array}),
        "conv1_w": lambda: fold(small, {name: given[name] for name in small.params} | {"conv1_w": array}),
        "gradient of ": lambda: refnet.backward(run, dict.fromkeys(dy, array)),
        "w ": lambda: inflate(array, 3),
        "conv1_w ": lambda: inflate_params(given | {"conv1_w": array}, small),
    }
    for name, door in doors.items():
        with pytest.raises(DTypeError) as raised:
            door()
        message = str(raised.value)
        assert message.startswith(name) and "\n" not in message, message
        for word in (*words, "expected "):
            assert word in message, message


class Foreign:
    """Another library's array, of which NumPy sees nothing unless it is told how."""

    def __init__(self, values, **attributes):
        self.values = values
        for name, value in attributes.items():
            setattr(self, name, value)


class Stubborn(Foreign):
    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("this array is elsewhere\nand stays there")


class Device:
    type = "cuda"

    def __str__(self):
        return "cuda:0"


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (7, ["is an int: expected float32 or float64"]),
        (None, ["is None: expected float32"]),
        ("weights.npy", ["is a str: expected float32"]),
        ({"weights": np.ones(2)}, ["is a dict: expected float32"]),
        ([1, 2], ["is a list of int64: expected float32"]),
        ([[1.0], [1.0, 2.0]], ["is a list, and NumPy cannot see its values (setting an array element"]),
        ([np.ones(2), None], ["is a list"]),
        (np.array([None]), ["is object: expected float32"]),
        (np.zeros(2, [("a", "f4"), ("b", "f8")]), ["is [('a', '<f4'), ('b', '<f8')]: expected float32"]),
        (np.zeros(2, "U3"), ["is <U3: expected float32"]),
        (np.zeros(2, "M8[s]"), ["is datetime64[s]: expected float32"]),
        (np.zeros(2, "c8"), ["is complex64: expected float32"]),
        (np.zeros(2, "V2"), ["is |V2: expected float32", ".view(ml_dtypes.bfloat16)"]),
        (np.ma.masked_equal(np.ones(SHAPE), 1), ["is a masked array: expected", "without a mask (.filled("]),
        (scipy.sparse.csr_array(np.eye(3)), ["is a csr_array: expected float32", "dense (.toarray())"]),
        (Foreign(np.ones(2)), ["is a Foreign: expected float32"]),
        (Stubborn(1), ["is a Stubborn, and NumPy cannot see its values (this array is elsewhere)"]),
        (Stubborn(1, dtype="torch.bfloat16"), ["is a Stubborn of torch.bfloat16", "convert it to float32"]),
        (
            Stubborn(1, device=Device()),
            ["is on the device cuda:0: expected an array in main memory (.cpu())"],
        ),
    ],
)
def test_what_is_no_array_of_real_numbers_is_refused(array, words):
    refused(array, *words)


def test_formats_of_a_byte_are_refused_with_a_hint():
    ml_dtypes = peer("ml_dtypes")
    for name in ("float8_e5m2", "float8_e4m3fn", "float4_e2m1fn"):
        array = np.ones(SHAPE, getattr(ml_dtypes, name))
        refused(array, f"is {name}: expected float32 or float64", "convert it to float32")


def bfloat16_of(values):
    """The nearest values that bfloat16 holds, ties to even, in float32; by the bits alone."""
    bits = np.asarray(values, np.float32).view(np.uint32).astype(np.uint64)
    bits = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16
    return bits.astype(np.uint32).view(np.float32)


def float16_of(values):
    return np.asarray(values).astype(np.float16).astype(np.float32)


def of_numpy(values, name):
    return values.astype(getattr(peer("ml_dtypes"), name, name))


def of_torch(values, name):
    torch = peer("torch")
    return torch.from_numpy(values.copy()).to(getattr(torch, name)).requires_grad_()


def of_jax(values, name):
    jax = peer("jax")
    return jax.numpy.asarray(values).astype(name)


NARROW = {"bfloat16": bfloat16_of, "float16": float16_of}


@pytest.mark.parametrize("name", NARROW)
@pytest.mark.parametrize("made", [of_numpy, of_torch, of_jax])
def test_what_float32_holds_is_taken_as_float32(name, made):
    """At every door; the same bits as for the values in float32."""
    small = net(time_kernel=1)
    given = refnet.fill.params(small, dtype="float32") | refnet.fill.inputs(small, dtype="float32")
    dy = refnet.fill.output_gradients(small, dtype="float32")
    narrow, values = ({k: f(v) for k, v in given.items()} for f in (lambda v: made(v, name), NARROW[name]))
    run = refnet.forward(small, values)
    grads = refnet.backward(run, {k: NARROW[name](v) for k, v in dy.items()})
    other = refnet.forward(small, narrow)
    found = refnet.backward(other, {k: made(v, name) for k, v in dy.items()})
    for ours, theirs in (
        (other.blobs, run.blobs),
        (found, grads),
        (inflate_params(narrow, net()), inflate_params(values, net())),
        (fold(small, {k: narrow[k] for k in small.params}).params, {k: values[k] for k in small.params}),
    ):
        assert ours.keys() == theirs.keys()
        assert all(ours[k].dtype == np.float32 and ours[k].tobytes() == theirs[k].tobytes() for k in ours)
    x = np.linspace(-2, 2, 48, dtype=np.float32).reshape(SHAPE)
    y, context = core.relu.forward(made(x, name))
    dx = core.relu.backward(made(x, name), context)[0]
    assert np.array_equal(y, np.maximum(NARROW[name](x), 0)) and y.dtype == np.float32
    assert np.array_equal(dx, np.where(x > 0, NARROW[name](x), 0)) and dx.dtype == np.float32
    assert not ulp_distance(made(x, name), NARROW[name](x)).any()


def test_every_value_of_narrow_formats_is_taken_exactly():
    bits = np.arange(1 << 16, dtype=np.uint16)
    for array, expected in (
        (bits.view(peer("ml_dtypes").bfloat16), (bits.astype(np.uint32) << 16).view(np.float32)),
        (bits.view(np.float16), bits.view(np.float16).astype(np.float32)),
        (bits.view(np.float16).astype(">f2"), bits.view(np.float16).astype(np.float32)),
    ):
        assert np.array_equal(at_the_door("x", array), expected, equal_nan=True)


@pytest.mark.parametrize("made", [of_numpy, of_torch, of_jax])
def test_narrow_formats_beside_float64_are_refused(made):
    small = net()
    given = refnet.fill.params(small) | refnet.fill.inputs(small)
    narrow = made(np.ones(small.inputs["data"], np.float32), "bfloat16")
    with pytest.raises(
        DTypeError,
        match="^data is bfloat16: expected float64, the dtype of conv1_w and 23 others; convert it$",
    ):
        refnet.forward(small, given | {"data": narrow})
    weights = made(np.ones(small.params["conv1_w"], np.float32), "bfloat16")
    with pytest.raises(
        DTypeError,
        match="^conv1_w is bfloat16: expected float64, the dtype of data and 23 others; convert it$",
    ):
        refnet.forward(small, given | {"conv1_w": weights})
    with pytest.raises(
        DTypeError,
        match="^conv1_w is bfloat16: expected float64, the dtype of res_conv1_bn_s and 22 others; ",
    ):
        fold(small, {name: given[name] for name in small.params} | {"conv1_w": weights})
    most = {name: made(value.astype(np.float32), "bfloat16") for name, value in given.items()}
    with pytest.raises(
        DTypeError,
        match="^data is float64: expected float32, as which .*_w and 23 others, bfloat16, are taken$",
    ):
        refnet.forward(small, most | {"data": given["data"]})
    run = refnet.forward(small, given)
    ones = {name: made(np.ones(small.shape(name), np.float32), "bfloat16") for name in small.outputs}
    with pytest.raises(DTypeError, match="gradient of .* is bfloat16: expected float64, the run's dtype"):
        refnet.backward(run, ones)
    x, w = np.ones((1, 1, 1, 2, 2)), made(np.ones((1, 1, 1, 1, 1), np.float32), "bfloat16")
    geometry = {"stride": (1, 1, 1), "pad": (0, 0, 0)}
    with pytest.raises(DTypeError, match="conv3d inputs have dtypes float64, bfloat16: expected one dtype"):
        core.conv3d.forward(x, w, **geometry)
    _, context = core.relu.forward(x)
    with pytest.raises(ShapeError, match="relu dy is bfloat16 1x1x1x2x2: expected float64"):
        core.relu.backward(made(np.ones(x.shape, np.float32), "bfloat16"), context)


def test_of_two_dtypes_that_of_the_few_is_refused():
    small = net()
    double = refnet.fill.inputs(small) | refnet.fill.params(small)
    single = {name: value.astype(np.float32) for name, value in double.items()}
    first, second, third, *_ = double
    for odd, said in (
        ({"data": double["data"]}, "^data is float64: expected float32, the dtype of conv1_w and 23 others$"),
        ({"data": double["data"].tolist()}, "^data is float64: expected float32"),
        ({name: double[name] for name in (first, second)}, f"^{first} and {second} are float64: expected "),
        ({name: double[name] for name in (first, second, third)}, f"^{first} and 2 others are float64: "),
    ):
        with pytest.raises(DTypeError, match=said):
            refnet.forward(small, single | odd)
    tiny = refnet.Net()
    tiny.output(tiny.add("add", "y", (tiny.input("a", (1, 1, 1, 1, 1)), tiny.input("b", (1, 1, 1, 1, 1)))))
    a, b = np.ones((1, 1, 1, 1, 1), np.float32), np.ones((1, 1, 1, 1, 1))
    with pytest.raises(DTypeError, match="^b is float64: expected float32, the dtype of a$"):
        refnet.forward(tiny, {"a": a, "b": b})


@pytest.mark.parametrize("made", [of_numpy, of_torch, of_jax])
def test_gradient_checks_take_narrow_arrays_and_refuse_narrow_results(made):
    x = made(np.linspace(1, 2, 5, dtype=np.float32), "bfloat16")

    def f(x):
        return x * x

    def vjp(dy, x):
        return 2 * x * dy

    assert refnet.gradcheck.check(f, vjp, [x], seed=3).ok
    seen = []
    refnet.gradcheck.check(lambda x: (seen.append(x), x * x)[1], vjp, [x], seed=3)
    assert type(seen[0]).__module__ == type(x).__module__ and stored_in(seen[0]) == "float32"
    with pytest.raises(
        DTypeError, match="what f returns is bfloat16: expected float32 or float64; compute it"
    ):
        refnet.gradcheck.check(lambda x: made(np.ones(5, np.float32), "bfloat16"), vjp, [x])
    with pytest.raises(DTypeError, match="gradient of array 0 is bfloat16: expected float32"):
        refnet.gradcheck.check(f, lambda dy, x: made(np.ones(5, np.float32), "bfloat16"), [x])


def test_the_format_of_an_array():
    assert stored_in(np.zeros(2, ">f4")) == "float32" and stored_in([1.0]) == "float64"
    for made in (of_numpy, of_torch, of_jax):
        for name in ("bfloat16", "float16", "float32"):
            assert stored_in(made(np.zeros(2, np.float32), name)) == name


@pytest.mark.parametrize("given", [7, None, "checkpoint.pkl", [1.0], np.ones(3)])
def test_what_maps_no_names_is_refused(given):
    small = net()
    values = refnet.fill.params(small) | refnet.fill.inputs(small)
    kind = "is None" if given is None else f"is an? {type(given).__name__}"
    for name, call in {
        "given": lambda: refnet.forward(small, given),
        "output_gradients": lambda: refnet.backward(refnet.forward(small, values), given),
        "params": lambda: fold(small, given),
        "params ": lambda: inflate_params(given, small),
    }.items():
        with pytest.raises(
            DTypeError, match=f"^{name.strip()} {kind}: expected a mapping of names to arrays$"
        ):
            call()


def test_numbers_and_lists_of_numbers_are_arrays():
    assert core.relu.forward([[[[[1.0, -2.0]]]]])[0].tolist() == [[[[[1.0, 0.0]]]]]
    x = np.array([[0.5, -0.5], [1.0, 2.0]])
    assert core.cross_entropy.forward(x, [0, 1])[0] == core.cross_entropy.forward(x, np.array([0, 1]))[0]
    _, context = core.cross_entropy.forward(x, np.array([0, 1], np.int8))
    one = core.cross_entropy.backward(np.ones(()), context)[0]
    assert np.array_equal(core.cross_entropy.backward(1.0, context)[0], one)
    with pytest.raises(DTypeError, match="labels is a list of float64: expected integers"):
        core.cross_entropy.forward(x, [0.0, 1.0])


class Lent:
    """An array that only `__dlpack__` leads to."""

    def __init__(self, values):
        self._values = values

    def __dlpack__(self, **options):
        return self._values.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._values.__dlpack_device__()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_arrays_that_are_lent_are_taken(dtype):
    values = np.random.default_rng(0).standard_normal((4, 3, 2, 2, 1)).astype(dtype)
    for odd in (values, values.T, values[::2]):
        assert np.array_equal(core.relu.forward(Lent(odd))[0], np.maximum(odd, 0))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tensors_of_torch_are_their_values(dtype):
    torch = peer("torch")
    small = net(time_kernel=1)
    given = refnet.fill.params(small, dtype=dtype) | refnet.fill.inputs(small, dtype=dtype)
    dy = refnet.fill.output_gradients(small, dtype=dtype)
    run = refnet.forward(small, given)
    grads = refnet.backward(run, dy)
    tensors = {name: torch.from_numpy(value.copy()).requires_grad_() for name, value in given.items()}
    tensors["data"] = tensors["data"].detach().to(memory_format=torch.channels_last_3d)
    tensors["conv1_w"] = torch.nn.Parameter(torch.from_numpy(given["conv1_w"].T.copy())).permute(
        4, 3, 2, 1, 0
    )
    assert tensors["conv1_w"].requires_grad and not tensors["conv1_w"].is_contiguous()
    other = refnet.forward(small, tensors)
    found = refnet.backward(other, {name: torch.from_numpy(value) for name, value in dy.items()})
    for ours, theirs in ((other.blobs, run.blobs), (found, grads)):
        assert {name: a.tobytes() for name, a in ours.items()} == {n: a.tobytes() for n, a in theirs.items()}
    inflated, expected = (inflate_params(params, net()) for params in (tensors, given))
    assert {name: a.tobytes() for name, a in inflated.items()} == {
        n: a.tobytes() for n, a in expected.items()
    }
    repeated = torch.ones(1, dtype=getattr(torch, dtype)).expand(SHAPE)
    assert np.array_equal(core.relu.forward(repeated)[0], np.ones(SHAPE))


def test_tensors_of_torch_that_numpy_cannot_hold_are_refused():
    torch = peer("torch")
    real = "expected float32 or float64"
    refused(torch.ones(SHAPE).to(torch.float8_e5m2), "torch.float8_e5m2", real, "convert it to float32")
    refused(torch.ones(SHAPE, dtype=torch.bfloat16).to_sparse(), "to_dense()", real)
    refused(torch.ones(SHAPE, dtype=torch.bfloat16, device="meta"), "on the device meta: expected an array")
    refused(torch.ones(SHAPE, dtype=torch.int64), f"is int64: {real}")
    refused(torch.ones(SHAPE).to_sparse(), "Tensor of torch.float32", "to_dense()", real)
    refused(torch.ones(SHAPE, device="meta"), "on the device meta: expected an array in main memory")
    refused([torch.ones(2), torch.ones(3)], "is a list")
    refused([torch.ones(2, requires_grad=True)], "is a list")


def test_arrays_of_jax_are_taken():
    jax = peer("jax")
    small = net()
    given = refnet.fill.params(small, dtype="float32") | refnet.fill.inputs(small, dtype="float32")
    other = refnet.forward(small, {name: jax.numpy.asarray(value) for name, value in given.items()})
    for name, blob in refnet.forward(small, given).blobs.items():
        assert np.array_equal(other.blobs[name], blob)
    gone = jax.numpy.ones(SHAPE)
    gone.delete()
    refused(gone, "and NumPy cannot see its values (Array has been deleted")
    refused(jax.numpy.ones(SHAPE, jax.numpy.float8_e5m2), "is float8_e5m2: expected", "convert it to float32")


def test_float16_is_taken_as_float32_and_nothing_is_computed_in_it():
    """Its values are taken everywhere, and a dtype to compute in is refused everywhere: both say so."""
    half, single = np.ones((1, 1, 1, 2, 2), np.float16), np.ones((1, 1, 1, 2, 2), np.float32)
    net = refnet.Net()
    net.output(net.add("relu", "y", (net.input("x", half.shape),)))
    run = refnet.forward(net, {"x": half})
    assert run["y"].dtype == core.relu.forward(half)[0].dtype == np.float32
    grads = refnet.backward(run, {"y": half})
    assert grads["x"].dtype == np.float32 and np.array_equal(grads["x"], single)
    for takes in (refnet.forward, core.relu.forward, type(core.relu).forward):
        assert re.search(r"float16 and\s+bfloat16 are\s+taken as float32", inspect.getdoc(takes))
    for ask in (
        lambda: refnet.fill.inputs(net, dtype=np.float16),
        lambda: refnet.golden.Recipe("resnet18_conv4", (1, 3, 1, 32, 32), dtype="float16").structure(),
    ):
        with pytest.raises(UnknownNameError, match="unknown dtype '?float16'?: .* are taken as float32"):
            ask()


NOTHING = refnet.Net()
NOTHING.output(NOTHING.add("relu", "y", (NOTHING.input("data", (1, 1, 1, 1, 1)),)))
PEERS = {
    "torch": "PyTorch is not installed: pip install torch",
    "jax": "JAX is not installed: pip install jax",
    "onnx": "ONNX is not installed: pip install onnx",
    "onnxruntime": "ONNX Runtime is not installed: pip install onnxruntime",
}


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("torch", lambda: interop.torch.capture(None, (), {})),
        ("torch", lambda: interop.torch.compare(None, NOTHING, ())),
        ("torch", lambda: interop.torch.check_torch(None, ())),
        ("torch", lambda: interop.torch.training_step(None, (), NOTHING, {})),
        ("torch", lambda: interop.torch.load_weights(None, {}, {})),
        ("jax", lambda: interop.jax.capture(None, {})),
        ("jax", lambda: interop.jax.compare(None, NOTHING, {})),
        ("onnx", lambda: interop.onnx.capture("model.onnx", {})),
        ("onnx", lambda: interop.onnx.compare("model.onnx", NOTHING, {})),
        ("onnxruntime", lambda: interop.onnx.capture("model.onnx", {})),
    ],
)
def test_a_framework_that_is_not_there_is_asked_for(monkeypatch, name, call):
    for other in ("onnx", "onnxruntime"):  # one of which may not be there either
        monkeypatch.setitem(sys.modules, other, ModuleType(other))
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(NotInstalledError) as caught:
        call()
    assert str(caught.value) == f"{PEERS[name]} (or refnet's extra peers)"
    assert isinstance(caught.value, ImportError)

"""What help, completion and type checkers show is what the definitions say."""

import inspect
import pydoc
import typing

import numpy as np
import pytest

import refnet
from refnet.arithmetic import ARITHMETICS, Arithmetic, core
from refnet.arithmetic.table import Entry
from refnet.errors import ShapeError, UnknownNameError
from refnet.interop import caffe2, jax, onnx, torch
from refnet.networks import ARCHITECTURES, catalog, fold, inflate, resnet3d
from refnet.op import ALIASES
from refnet.ops import OPS

X = np.ones((1, 1, 1, 1, 1))
every_arithmetic = pytest.mark.parametrize("arithmetic", ARITHMETICS.values(), ids=lambda a: a.name)
every_op = pytest.mark.parametrize("op", OPS.values(), ids=lambda op: op.name)


def shown(function):
    """Names, kinds and defaults."""
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


@every_arithmetic
@every_op
def test_a_signature_is_the_definition_s(arithmetic, op):
    door = arithmetic[op.name]
    assert shown(door.forward) == shown(op.infer)
    said = pydoc.plain(pydoc.render_doc(door))
    assert f"{arithmetic.name}.{op.name}.forward{inspect.signature(door.forward)} -> (y, context)" in said
    assert f"{arithmetic.name}.{op.name}.backward(dy, context, needs=None) -> (" in said
    assert f"forward{inspect.signature(door.forward)}" in pydoc.plain(pydoc.render_doc(door.forward))
    assert (op.infer.__doc__ or "").split("\n")[0] in door.forward.__doc__


def test_the_signature_of_a_convolution():
    assert str(inspect.signature(core.conv3d.forward)) == (
        "(x, w, b=None, *, stride=(1, 1, 1), pad=(0, 0, 0), dilation=(1, 1, 1), groups=1)"
    )
    assert repr(core.cross_entropy).endswith(
        "core.cross_entropy.backward(dy, context, needs=None) -> (dx, None)>"
    )


@every_op
def test_types_are_the_definition_s(op):
    """A type checker reads them off the definition's forward; what that takes by name is what infer takes."""
    assert isinstance(vars(Arithmetic)[op.name], Entry)
    own = inspect.signature(op.forward).parameters.values()
    names = [p.name for p in own if p.kind is not p.VAR_KEYWORD]
    for p in own:
        if p.kind is p.VAR_KEYWORD:
            (attributes,) = typing.get_args(p.annotation)
            names += attributes.__annotations__
            required = {n for n, q in op.signature.parameters.items() if q.default is q.empty} - {
                *op.operands
            }
            assert attributes.__required_keys__ == required
            infer = inspect.signature(op.infer).parameters
            hints = typing.get_type_hints(attributes)
            assert {n: infer[n].annotation for n in hints} == hints
    assert names == list(op.signature.parameters)


@every_arithmetic
def test_completion_finds_the_operators(arithmetic):
    assert {*arithmetic} <= {*dir(arithmetic)} and {"replace", "kernels"} <= {*dir(arithmetic)}
    assert arithmetic._ipython_key_completions_() == list(arithmetic)


def test_completion_finds_no_operator_that_is_not_there():
    little = Arithmetic("little", {"relu": core.kernels["relu"]})
    assert "relu" in dir(little) and "conv3d" not in dir(little)
    with pytest.raises(AttributeError, match="unknown operator of arithmetic little 'conv3d'"):
        _ = little.conv3d
    with pytest.raises(AttributeError, match=r"'conv2d': did you mean conv3d\?"):
        _ = core.conv2d


def test_completion_finds_blobs_and_gradients():
    net = refnet.Net()
    net.output(net.add("relu", "y", (net.input("data", X.shape),)))
    run = refnet.forward(net, {"data": X})
    assert type(run.blobs) is dict  # whose keys IPython completes
    assert refnet.backward(run, {"y": X})._ipython_key_completions_() == ["data"]


@pytest.mark.parametrize(
    ("name", "meant"),
    {
        **dict.fromkeys(("padding", "pads", "Padding", "paddings"), "pad"),
        **dict.fromkeys(("strides", "window_strides"), "stride"),
        **dict.fromkeys(("dilations", "dilatation", "rhs_dilation"), "dilation"),
        **dict.fromkeys(("group", "feature_group_count"), "groups"),
        **dict.fromkeys(("weight", "weights", "kernel", "filters"), "w"),
        **dict.fromkeys(("bias",), "b"),
        **dict.fromkeys(("input", "inputs"), "x"),
    }.items(),
)
def test_other_libraries_names_suggest_ours(name, meant):
    with pytest.raises(
        UnknownNameError, match=rf"^unknown argument of conv3d '{name}': did you mean {meant}\? Known: x,"
    ):
        core.conv3d.forward(X, X, **{name: 1})
    if meant in OPS["conv3d"].attributes:
        net = refnet.Net()
        x, w = net.input("data", X.shape), net.param("a_w", X.shape)
        with pytest.raises(UnknownNameError, match=rf"^a \(conv3d\): .*attribute .* did you mean {meant}\?"):
            net.add("conv3d", "a", (x, w), **{name: 1})
        with pytest.raises(UnknownNameError, match=rf"did you mean {meant}\?"):
            refnet.certify.check("conv3d", (X, X), X, **{name: 1})


@pytest.mark.parametrize(
    ("op", "name", "meant"),
    [
        ("max_pool3d", "kernel_size", "kernel"),
        ("affine", "scale", "s"),
        ("affine", "weight", "s"),
        ("batch_norm", "eps", "epsilon"),
        ("batch_norm", "running_var", "variance"),
        ("dropout", "p", "ratio"),
        ("cross_entropy", "target", "labels"),
        ("roi_align", "output_size", "output"),
        ("roi_align", "boxes", "rois"),
        ("upsample_nearest", "scale_factor", "scale"),
        ("linear", "bias", "b"),
        ("add", "other", "x2"),
    ],
)
def test_other_operators_too(op, name, meant):
    with pytest.raises(UnknownNameError, match=rf"'{name}': did you mean {meant}\?"):
        core[op].forward(X, **{name: 1})


def test_every_alias_means_something():
    known = {name for op in OPS.values() for name in op.signature.parameters}
    assert {name for meant in ALIASES.values() for name in meant} <= known
    options = {*catalog.OPTIONS, "input"}
    assert {name for meant in catalog.ALIASES.values() for name in meant} <= options


def test_what_is_missing_is_said_with_the_signature():
    with pytest.raises(
        ShapeError, match=r"missing a required argument: 'kernel': expected max_pool3d\(x, \*, kernel,"
    ):
        core.max_pool3d.forward(X)
    net = refnet.Net()
    x = net.input("data", X.shape)
    with pytest.raises(
        ShapeError, match=r"^c \(conv3d\): missing a required argument: 'w': expected conv3d\(x, w,"
    ):
        net.add("conv3d", "c", (x,))
    with pytest.raises(UnknownNameError, match="unknown attribute of conv3d 'w'"):
        net.add("conv3d", "c", (x,), w=x)


def test_build_shows_the_options_of_every_architecture():
    parameters = inspect.signature(refnet.build).parameters
    assert list(parameters) == ["architecture", "input", *catalog.OPTIONS]
    said = " ".join(pydoc.plain(pydoc.render_doc(refnet.build)).split())
    assert "transformation: str = ...," in said and "Ellipsis" not in said
    for a in ARCHITECTURES.values():
        assert a.name in said
        for option, default in a.options.items():
            assert f"{option}={default!r}" in said
            assert parameters[option].default in (default, catalog.VARIOUS)
            assert f">{option}<" in a._repr_html_()
    assert catalog.Options.__annotations__.keys() == {*catalog.OPTIONS}
    hints, body = typing.get_type_hints(catalog.Options), inspect.signature(resnet3d.body).parameters
    assert all(body[n].annotation is hints[n] for n in hints if n in body)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ResNet18", "resnet18_conv"),
        ("resnet-50-conv5", "resnet50_conv5"),
        ("RESNET18_CONV4", "resnet18_conv4"),
        ("resnet101 classifier", "resnet101_classifier"),
        ("fpn resnet50", "fpn_resnet50_conv5"),
    ],
)
def test_a_misspelt_architecture_is_understood(name, meant):
    with pytest.raises(UnknownNameError, match=f"^unknown architecture '{name}': did you mean {meant}"):
        refnet.build(name)


@pytest.mark.parametrize(
    ("architecture", "option", "meant"),
    [
        ("resnet18_conv4", "freeze", "freeze_at"),
        ("resnet18_conv4", "time_kernal", "time_kernel"),
        ("resnet18_conv4", "temporal_stride", "time_stride"),
        ("resnet18_conv4", "shape", "input"),
        ("resnet50_classifier", "num_classes", "classes"),
    ],
)
def test_an_unknown_option_lists_the_known_ones(architecture, option, meant):
    known = ", ".join(["input", *ARCHITECTURES[architecture].options])
    with pytest.raises(UnknownNameError) as caught:
        refnet.build(architecture, **{option: 1})
    assert (
        str(caught.value)
        == f"unknown option of {architecture} '{option}': did you mean {meant}? Known: {known}"
    )
    with pytest.raises(UnknownNameError, match=f"'elephants': expected one of {known}$"):
        refnet.build(architecture, elephants=2)


def test_a_builder_suggests_too():
    with pytest.raises(
        TypeError, match=r"body\(\) got an unexpected .* 'time_kernal': did you mean time_kernel\?"
    ):
        resnet3d.body(time_kernal=3)


FACES = [
    *(refnet, refnet.certify, refnet.clip, refnet.fill, refnet.golden, refnet.gradcheck, refnet.trace),
    *(caffe2, jax, onnx, torch, fold, inflate),
]


@pytest.mark.parametrize("face", FACES, ids=lambda face: face.__name__)
def test_help_names_types_and_spells_none_out(face):
    """`Array`, not the generic type of NumPy's that it stands for."""
    found = [f for name, f in vars(face).items() if callable(f) and not name.startswith("_")]
    found = [f for f in found if f.__module__ == face.__name__ or f.__name__ in getattr(face, "__all__", ())]
    methods = [m for c in found if inspect.isclass(c) for m in vars(c).values() if inspect.isfunction(m)]
    found = [f for f in found if f is not refnet.RefnetError]  # which is Exception's
    for function in (*found, *methods, core.conv3d.backward):
        assert "numpy" not in str(inspect.signature(function)), function

"""`check_torch`: a porter's module passes, what is planted in it is named; it is left as it was."""

from importlib import import_module

import pytest
from bundles import NETS
from support import every_dtype

import refnet
from refnet.errors import DTypeError, ShapeError, UnknownNameError, ValueRangeError
from refnet.gradcheck import check_torch
from refnet.interop.torch import weights
from refnet.interop.torch_names import match

# The middle convolution of res4_0's bottleneck, 16 channels to 16.
NODE, SOURCE = "res4_0_branch2b", "res4_0_branch2a_relu"


def wrong(report):
    return {name: verdict for name, verdict in report.verdicts.items() if verdict.verdict == "wrong"}


def check(porters, module, net, seed=0, dtype="float64", **options):
    filled = porters.fill(module, seed, getattr(porters.torch, dtype))
    return check_torch(filled, porters.data(net, seed, dtype), net=net, seed=seed, **options)


# What is right.


@every_dtype
@pytest.mark.parametrize("bottleneck", [True, False])
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("inplace", [False, True])
def test_a_body_passes(porters, bottleneck, batch_norm, inplace, dtype):
    norm = porters.nn.BatchNorm3d if batch_norm else porters.Frozen
    net = porters.net(bottleneck, batch_norm)
    report = check(porters, porters.Body(bottleneck, norm, inplace).eval(), net, dtype=dtype)
    assert report.ok, report
    dy = refnet.fill.output_gradients(net)
    given = {**refnet.fill.inputs(net), **refnet.fill.params(net)}
    gradients = refnet.backward(refnet.forward(net, given), dy)
    tensors = {n: v for n, v in report.verdicts.items() if n in {*net.params, *net.inputs}}
    assert {name for name, verdict in tensors.items() if verdict.verdict == "ok"} == set(gradients)
    assert {name for name, verdict in tensors.items() if verdict.verdict == "blocked"} == gradients.blocked
    for name, gradient in gradients.items():
        assert tensors[name].elements == gradient.size
    with_parameters = [n.name for n in net.nodes if any(i in net.params for i in n.inputs)]
    assert {f"value of {name}" for name in with_parameters} <= set(report.verdicts)


@every_dtype
@pytest.mark.parametrize("training", [False, True])
def test_a_classifier_with_its_loss_passes(porters, training, dtype):
    module = porters.Classifier(bottleneck=False, norm=porters.nn.BatchNorm3d).train(training)
    report = check(porters, module, porters.classes(training=training), dtype=dtype)
    assert report.ok and report.verdicts["data"].verdict == "ok", report


@every_dtype
@pytest.mark.parametrize("kind", ["bottleneck", "basic", "batch norm", "training"])
def test_no_false_alarm_over_20_seeds(porters, kind, dtype):
    batch_norm = porters.nn.BatchNorm3d
    for seed in range(20):
        if kind == "training":
            module, net = (
                porters.Classifier(bottleneck=False, norm=batch_norm),
                porters.classes(training=True),
            )
        elif kind == "batch norm":
            module, net = porters.Body(norm=batch_norm).eval(), porters.net(batch_norm=True)
        else:
            module, net = porters.Body(kind == "bottleneck"), porters.net(kind == "bottleneck")
        report = check(porters, module, net, seed, dtype)
        assert report.ok, (seed, report)


@pytest.mark.parametrize("returned", ["loss", "scores"])
def test_a_classifier_in_2d_passes(porters, returned):
    """Also one that returns its scores, which are the value of a layer."""
    net = porters.classes(bottleneck=True)
    module = porters.flat(porters.Classifier(norm=porters.nn.BatchNorm3d)).eval()
    x, labels = porters.data(net)
    inputs = [x[:, :, 0], labels] if returned == "loss" else x[:, :, 0]
    report = check_torch(porters.fill(module), inputs, net=net)
    assert report.ok and report.verdicts["data"].elements == x.numel()
    assert ("value of loss" in report.verdicts) == (returned == "loss")


@every_dtype
@pytest.mark.parametrize("name", NETS)
def test_every_small_net_passes(porters, name, dtype):
    """Pyramids, heads over regions, links: whatever stands between the layers."""
    net = NETS[name]()
    module = porters.Nodes(net, refnet.fill.params(net, dtype=dtype))
    report = check_torch(module, porters.data(net, dtype=dtype), net=net)
    assert report.ok, report
    run = refnet.forward(net, refnet.fill.params(net) | refnet.fill.inputs(net))
    gradients = refnet.backward(run, refnet.fill.output_gradients(net))
    assert set(gradients) <= set(report.verdicts)


def test_channels_last_and_gradients_of_data(porters, torch):
    net, module = porters.net(freeze_at=0), porters.fill(porters.Body(stop=0, inplace=True), 1)
    module.to(memory_format=torch.channels_last_3d)
    (x,) = porters.data(net)
    report = check_torch(module, x.to(memory_format=torch.channels_last_3d), net=net)
    assert report.ok and report.verdicts["data"].elements == x.numel()


def test_a_mean_far_from_zero_is_rounding(porters, torch):
    """The mean is folded into the shift, and both terms are rounded before they cancel."""
    net, module = porters.net(batch_norm=True), porters.fill(porters.Body(norm=porters.nn.BatchNorm3d).eval())
    with torch.no_grad():
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer += 1000
    report = check_torch(module.float(), porters.data(net, dtype="float32"), net=net)
    assert report.ok, report


# What is planted.


def planted(porters, change, forward=lambda y, x, w, module: y):
    """A convolution whose backward is changed: ``change(dx, dw, x, w, dy, module) -> (dx, dw)``."""
    torch, of_conv = porters.torch, import_module("torch.nn.grad")

    class Planted(porters.nn.Conv3d):
        def forward(self, x):
            module, window = self, (self.stride, self.padding)

            class Function(torch.autograd.Function):
                @staticmethod
                def forward(context, x, w):
                    context.save_for_backward(x, w)
                    return forward(porters.f.conv3d(x, w, None, *window), x, w, module)

                @staticmethod
                def backward(context, dy):
                    x, w = context.saved_tensors
                    dx = of_conv.conv3d_input(x.shape, w, dy, *window)
                    dw = of_conv.conv3d_weight(x, w.shape, dy, *window)
                    return change(dx, dw, x, w, dy, module)

            return Function.apply(x, self.weight)

    def put(module):
        module.stages[2][0].conv2.__class__ = Planted

    return put


def dx_of(change_of_w):
    def change(dx, dw, x, w, dy, module):
        of_conv = import_module("torch.nn.grad")
        changed = of_conv.conv3d_input(
            x.shape, change_of_w(w).contiguous(), dy, module.stride, module.padding
        )
        return changed, dw

    return change


def without_last_column(g):
    return g * (g.new_ones(g.shape[-1]).cumsum(0) < g.shape[-1])


def one_element(g):
    g = g.clone()
    g[3, 5, 1, 1, 1] *= 1 + 1e-6
    return g


CONVS = {
    "kernel transposed": (dx_of(lambda w: w.transpose(0, 1)), SOURCE),
    "flipped in time": (dx_of(lambda w: w.flip(2)), SOURCE),
    "last column lost": (lambda dx, dw, *_: (without_last_column(dx), dw), SOURCE),
    "dx larger by 1e-9": (lambda dx, dw, *_: (dx * (1 + 1e-9), dw), SOURCE),
    "dw larger by 1e-9": (lambda dx, dw, *_: (dx, dw * (1 + 1e-9)), f"{NODE}_w"),
    "dw transposed": (lambda dx, dw, *_: (dx, dw.transpose(0, 1)), f"{NODE}_w"),
    "one element of dw": (lambda dx, dw, *_: (dx, one_element(dw)), f"{NODE}_w"),
}


@pytest.mark.parametrize("name", CONVS)
def test_a_planted_convolution_is_found_and_named(porters, name):
    change, tensor = CONVS[name]
    module, net = porters.Body(), porters.net()
    planted(porters, change)(module)
    report = check(porters, module, net)
    assert set(wrong(report)) == {tensor}
    found = report.verdicts[tensor]
    assert found.node == NODE and found.margin > 1 and found.structure and "check_torch" in found.reproduce
    if name in ("kernel transposed", "flipped in time", "dx larger by 1e-9", "dw larger by 1e-9"):
        assert found.cause


def test_without_its_defect_the_planted_convolution_passes(porters):
    module = porters.Body()
    planted(porters, lambda dx, dw, *_: (dx, dw))(module)
    assert check(porters, module, porters.net()).ok


def test_the_same_flip_forward_and_backward_is_found_by_its_value(porters):
    module = porters.Body()
    flipped = lambda y, x, w, m: porters.f.conv3d(x, w.flip(2), None, m.stride, m.padding)  # noqa: E731
    planted(porters, dx_of(lambda w: w.flip(2)), flipped)(module)
    assert {f"value of {NODE}", SOURCE} <= set(wrong(check(porters, module, porters.net())))


class Lossy:
    """A sum whose second term gets what `second` makes of dy."""

    def __init__(self, porters, second):
        class Function(porters.torch.autograd.Function):
            @staticmethod
            def forward(context, a, b):
                return a + b

            @staticmethod
            def backward(context, dy):
                return dy, second(dy)

        self.forward = Function.apply


@pytest.mark.parametrize(
    "second", [lambda dy: dy * 0, lambda dy: None, lambda dy: 2 * dy, lambda dy: dy * (1 + 1e-9)]
)
@pytest.mark.parametrize(
    ("place", "tensor"),
    [((2, 0), "res4_0_branch1_bn"), ((2, 1), "res4_0_branch2c_bn"), ((1, 1), "res3_0_branch2c_bn")],
)
def test_a_shortcut_that_backward_changes(porters, place, tensor, second):
    """The projection's norm gets too little; behind an identity, the last norm of the block before does."""
    module, (stage, block) = porters.Body(), place
    module.stages[stage][block].sum.forward = Lossy(porters, second).forward
    report = check(porters, module, porters.net())
    assert not report.ok and tensor in wrong(report)
    assert wrong(report)[tensor].node == tensor and wrong(report)[tensor].cause
    above = {name for name in wrong(report) if int(name[3]) > stage + 2}
    assert not above


def test_a_rectifier_without_a_mask(porters):
    class Function(porters.torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            return x.clamp(min=0)

        @staticmethod
        def backward(context, dy):
            return dy

    module = porters.Body()
    block = module.stages[2][1]
    block.relu.forward = Function.apply
    found = wrong(check(porters, module, porters.net()))
    assert {"res4_1_branch2a_bn", "res4_1_branch2b_bn", "res4_1_branch2c_bn"} <= set(found)
    assert all(name.startswith(("res4_1_branch2", "res4_0")) for name in found)


def test_a_stop_one_stage_too_late_or_early(porters):
    early = wrong(check(porters, porters.Body(stop=3), porters.net()))
    assert {"res3_1_branch2c_w", "res3_0_branch2a_w", "res3_1_branch2c_bn"} <= set(early)
    assert all(verdict.node.startswith("res3") or name == "res3_1_relu" for name, verdict in early.items())
    late = wrong(check(porters, porters.Body(stop=0), porters.net()))
    assert {"conv1_w", "res2_1_branch2c_w", "res2_1_branch2c_bn"} <= set(late)
    assert all(not name.startswith(("res3", "res4")) for name in late)


def test_a_detach_in_a_branch(porters):
    module = porters.Body()
    block = module.stages[2][1]
    right = block.conv2.forward
    block.conv2.forward = lambda x: right(x.detach())
    found = wrong(check(porters, module, porters.net()))
    assert found["res4_1_branch2a_relu"].node == "res4_1_branch2b"
    assert "detached" in found["res4_1_branch2a_relu"].cause
    assert {"res4_1_branch2a_w", "res4_1_branch2a_bn_s"} <= set(found)
    assert not any(name.startswith("res3") for name in found)


def test_parameters_that_are_not_learnt(porters, torch):
    """A frozen norm is somebody's choice, and said; a frozen convolution is compared with the net's stops."""
    module = porters.Body()
    for name, parameter in module.named_parameters():
        parameter.requires_grad_("bn" not in name)
    report = check(porters, module, porters.net())
    assert report.ok
    assert "requires_grad is False" in report.verdicts["res4_0_branch2b_bn_s"].why
    module.stages[2][0].conv2.weight.requires_grad_(False)
    assert set(wrong(check(porters, module, porters.net()))) == {f"{NODE}_w"}


def test_wiring_is_judged_too(porters):
    """A pool of another window, and a rectifier that is not there."""
    module = porters.Body()
    module.pool.forward = lambda x: porters.f.max_pool3d(x[..., :-1], (1, 3, 3), (1, 2, 2), (0, 1, 1))
    found = wrong(check(porters, module, porters.net()))
    assert set(found) == {"value of pool1"} and "max_pool3d" in found["value of pool1"].cause
    module = porters.Body()
    module.stages[2][0].relu.forward = lambda x: x
    assert "value of res4_0_branch2a_relu" in wrong(check(porters, module, porters.net()))


# The module is left as it was.


@pytest.mark.parametrize("fails", [False, True])
def test_state_is_left_as_it_was(porters, torch, fails):
    net, module = (
        porters.classes(training=True),
        porters.fill(porters.Classifier(norm=porters.nn.BatchNorm3d)),
    )
    net = porters.classes(bottleneck=True, training=True)
    for parameter in module.parameters():
        parameter.grad = torch.full_like(parameter, 7)
    module.trunk.stem.eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    modes = {path: part.training for path, part in module.named_modules()}
    if fails:
        module.fc.forward = lambda x: 1 / 0
        with pytest.raises(ZeroDivisionError):
            check_torch(module, porters.data(net), net=net)
    else:
        inputs = porters.data(net)
        assert check_torch(module, inputs, net=net).ok
        assert not any(tensor.requires_grad for tensor in inputs)
    assert modes == {path: part.training for path, part in module.named_modules()}
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name
    for parameter in module.parameters():
        assert (parameter.grad == 7).all()
    for part in module.modules():
        assert not part._forward_hooks and not part._forward_pre_hooks and not part._backward_hooks


# Names, and what does not fit.


def test_names_by_order_mapping_and_function(porters):
    net, module = porters.net(), porters.Body()
    by_order = match(net, module)
    assert by_order["stages.2.0.conv2"] == NODE and by_order["stages.1.0.shortcut.1"] == "res3_0_branch1_bn"
    assert by_order == match(net, module, by_order) == match(net, module, by_order.get)
    assert by_order == match(net, module, {"stages.2.0.conv2": NODE})
    given = weights(module, net, by_order)
    assert set(given) == set(net.params)
    assert (given["conv1_w"] == module.stem.weight.detach().numpy()).all()


def test_equal_names_stand_in_any_order(porters):
    net, nn = porters.net(), porters.nn
    module = nn.Module()
    for node in reversed(net.nodes):
        if node.op == "conv3d":
            w = net.params[f"{node.name}_w"]
            module.add_module(node.name, nn.Conv3d(w[1], w[0], w[2:], bias=False))
        elif node.op == "affine":
            module.add_module(node.name, porters.Frozen(node.shape[1]))
    assert match(net, module) == {n.name: n.name for n in reversed(net.nodes) if n.op in ("conv3d", "affine")}


def test_what_does_not_fit_is_said(porters):
    net = porters.net()
    (x,) = porters.data(net)
    cases = [
        (porters.Body(dims=(4, 8, 12)), {}, ShapeError, "stages.2.0.conv3"),
        (porters.Body(False), {}, ShapeError, "expected"),
        (porters.Body(norm=porters.nn.BatchNorm3d), {}, ShapeError, "batch_norm=True"),
        (porters.Body(), {"names": {"stem": "conv2"}}, UnknownNameError, "conv2"),
        (porters.Body(), {"names": {"stam": "conv1"}}, UnknownNameError, "stam"),
        (porters.Body(), {"names": {"stem": "res4_0_branch1"}}, ShapeError, "stem"),
        (porters.Body(), {"names": {"stem": "conv1", "pool": "conv1"}}, ValueRangeError, "conv1"),
    ]
    for module, options, error, words in cases:
        with pytest.raises(error, match=words) as caught:
            check_torch(porters.fill(module), x, net=net, **options)
        assert "\n" not in str(caught.value)
    with pytest.raises(ShapeError, match="data has shape"):
        check_torch(porters.fill(porters.Body()), x[..., :-1], net=net)
    with pytest.raises(DTypeError, match="inputs"):
        check_torch(porters.fill(porters.Body()), x.numpy(), net=net)


def test_a_layer_called_twice_or_never(porters):
    net, module = porters.net(), porters.fill(porters.Body())
    inputs = porters.data(net)
    conv2, conv3 = module.stages[2][1].conv2, module.stages[2][0].conv2
    conv2.forward = lambda x: conv3(x)
    with pytest.raises(ValueRangeError, match=r"stages.2.0.conv2 is called twice"):
        check_torch(module, inputs, net=net)
    module = porters.fill(porters.Body())
    block = module.stages[2][1]
    block.forward = lambda x: x
    with pytest.raises(ValueRangeError, match=r"stages.2.1.conv1 was not called"):
        check_torch(module, inputs, net=net)


def test_what_cannot_be_taken_is_said(porters, torch):
    net = porters.net()
    (x,) = porters.data(net)
    shared, normed = porters.Body(), porters.Body()
    shared.stages[2][1].conv2.weight = shared.stages[2][0].conv2.weight
    porters.nn.utils.parametrizations.weight_norm(normed.stages[2][1].conv2)
    cases = [
        (shared, x, {}, ValueRangeError, r"stages.2.1.conv2.weight is stages.2.0.conv2.weight"),
        (normed, x, {}, ValueRangeError, r"stages.2.1.conv2 computes its weight"),
        (porters.Body(), x.float(), {}, DTypeError, "float32"),
        (porters.Body(), x / 0, {}, ValueRangeError, "NaN or infinity"),
        (porters.Body(), [x, x], {}, ValueRangeError, "2 inputs"),
        (porters.Body(), x, {"names": 5}, DTypeError, "names is 5"),
        (porters.Body(), x, {"seed": -1}, ValueRangeError, "seed"),
    ]
    for module, inputs, options, error, words in cases:
        with pytest.raises(error, match=words):
            check_torch(porters.fill(module), inputs, net=net, **options)
    with pytest.raises(DTypeError, match="stem.weight is float16"):
        check_torch(porters.fill(porters.Body()).half(), x.half(), net=net)
    with pytest.raises(DTypeError, match=r"torch.nn.Module"):
        check_torch(porters.Body, x, net=net)


def test_a_layer_that_writes_into_its_input(porters, torch):
    """A rectifier may, and says so; of another nobody could tell what it handed back."""
    net, module = porters.net(), porters.Body(inplace=True)
    module.stem_bn.forward = lambda x: x.mul_(2)
    with pytest.raises(ValueRangeError, match="stem_bn writes into what it reads"):
        check(porters, module, porters.net(freeze_at=0))
    nodes = porters.Nodes(net, refnet.fill.params(net))
    named = {node.name: node.name for node in net.nodes if node.op == "relu"}
    for name in named:
        nodes.add_module(name, porters.nn.ReLU(inplace=True))
    report = check_torch(nodes, porters.data(net), net=net, names=named)
    assert report.ok and report.verdicts["value of res4_0_branch2a_relu"].elements, report


def test_modes_of_the_caller_change_nothing(porters, torch):
    net, module = porters.net(), porters.fill(porters.Body()).float()
    (x,) = porters.data(net, dtype="float32")
    report = check_torch(module, x, net=net)
    for mode in (torch.no_grad(), torch.inference_mode(), torch.autocast("cpu", torch.bfloat16)):
        with mode:
            assert check_torch(module, x, net=net) == report


# What is recognised.


def wide_body(porters, **options):
    """`resnet18_conv4` itself."""
    module = porters.Body(dims=(64, 128, 256), inner=64, **options)
    module.stem = porters.nn.Conv3d(3, 64, (1, 7, 7), (1, 2, 2), (0, 3, 3), bias=False)
    module.stem_bn = porters.Frozen(64)
    module.stages[0][0] = porters.Block(64, 64, 64, 1, 1, True, porters.Frozen, False)
    return module


def test_an_architecture_is_recognised(porters, torch):
    x = torch.rand(1, 3, 2, 32, 32) * 256 - 128
    module = porters.fill(wide_body(porters), dtype=torch.float32)
    report = check_torch(module, x)
    assert report.ok and report.title == "gradients of Body as resnet18_conv4, float32"
    assert report.verdicts["conv1_w"].verdict == "blocked"
    module = porters.fill(wide_body(porters, time=5, stop=0), dtype=torch.float32)
    for part in (module.stem, module.stem_bn, *module.stages[:2]):
        part.requires_grad_(False)
    report = check_torch(module, x)
    assert report.ok and "resnet18_conv4 with time_kernel=5, freeze_at=3" in report.title, report


def test_a_layer_that_no_architecture_has(porters, torch):
    module = wide_body(porters)
    module.stages[1][1].conv3 = porters.nn.Conv3d(128, 129, 1, bias=False)
    with pytest.raises(
        ShapeError, match=r"nearest is resnet18_conv4: stages.1.1.conv3 .*128x128x1x1x1.*Pass net="
    ):
        check_torch(module, torch.zeros(1, 3, 2, 32, 32))


def test_an_epsilon_that_is_another(porters):
    module = porters.Body(norm=porters.nn.BatchNorm3d).eval()
    module.stem_bn.eps = 1e-3
    with pytest.raises(ValueRangeError, match=r"stem_bn has eps 0.001"):
        check(porters, module, porters.net(batch_norm=True))

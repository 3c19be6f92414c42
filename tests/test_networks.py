"""The catalog, against the facts of the papers and of the original wiring."""

from inspect import signature

import numpy as np
import pytest
from support import assert_all_within, assert_within, rounding_bound, run_bound, unit

import refnet
from refnet.errors import RefnetError, ShapeError, UnknownNameError, ValueRangeError
from refnet.networks import ARCHITECTURES
from refnet.networks.resnet3d import body
from refnet.ops import OPS
from refnet.shapes import size
from refnet.trace import freeze_points, trace

BLOCKS = {18: 8, 34: 16, 50: 16, 101: 33, 152: 50}
BODIES = [f"resnet{depth}_conv{stage}" for depth in BLOCKS for stage in (4, 5)]
PYRAMIDS = [f"fpn_resnet{depth}_conv5" for depth in BLOCKS]
HEADS = [f"roi_resnet{depth}_conv4" for depth in BLOCKS]
CLASSIFIERS = [f"resnet{depth}_classifier" for depth in BLOCKS]


def depth_and_stage(name):
    depth, stage = name.removeprefix("resnet").split("_conv")
    return int(depth), int(stage)


def test_the_catalog_is_what_the_design_names():
    assert set(ARCHITECTURES) == {*BODIES, *PYRAMIDS, *HEADS, *CLASSIFIERS}


def test_the_input_may_come_second():
    shape = (1, 3, 2, 32, 32)
    assert refnet.build("resnet18_conv4", shape).inputs == {"data": shape}
    assert (
        refnet.build("resnet18_conv4", shape, freeze_at=0).params.keys()
        == refnet.build("resnet18_conv4", input=shape).params.keys()
    )


def test_a_net_gives_its_nodes_by_name():
    net = refnet.build("resnet18_conv4", (1, 3, 2, 32, 32))
    assert [*net] == [node.name for node in net.nodes] and [net[name] for name in net] == net.nodes
    assert "conv1" in net and "conv1_w" not in net and net._ipython_key_completions_() == [*net]
    with pytest.raises(UnknownNameError, match="unknown node 'conv_1': did you mean conv1"):
        net["conv_1"]
    with pytest.raises(UnknownNameError, match="unknown node 0: expected one of conv1"):
        net[0]


def test_builders_show_the_options_of_blocks():
    """``help`` and the catalog read them, with their defaults, off the signatures."""
    blocks = {
        "time_kernel": 3,
        "time_stride": False,
        "groups": 1,
        "width_per_group": 64,
        "stride_1x1": True,
        "dilation": 1,
        "batch_norm": False,
        "training": False,
    }
    flat = {name: blocks[name] for name in blocks if not name.startswith("time_")}
    for builder, first, options in (
        (body, {"transformation": "bottleneck", "freeze_at": 2}, blocks),
        (refnet.networks.roi_head.head, {"link": "none", "transformation": "bottleneck"}, blocks),
        (refnet.networks.classifier.classifier, {"classes": 1000, "freeze_at": 0}, flat),
    ):
        shown = {p.name: p.default for p in signature(builder).parameters.values()}
        assert list(shown.items())[-len(first | options) :] == list((first | options).items())
    with pytest.raises(TypeError, match="unexpected keyword argument 'time_kernal'"):
        body(time_kernal=3)
    with pytest.raises(TypeError, match="time_stride"):
        refnet.networks.classifier.classifier(time_stride=True)


@pytest.mark.parametrize("transformation", ["bottleneck", "basic"])
@pytest.mark.parametrize("name", BODIES)
def test_depth_counts_the_convolutions(name, transformation):
    """A conv5 body has depth - 1 convolutions in its branches (the fully connected layer is one)."""
    depth, stage = depth_and_stage(name)
    net = refnet.build(name, transformation=transformation)
    branches = [n for n in net.nodes if n.op == "conv3d" and "branch1" not in n.name]
    blocks = BLOCKS[depth] - (3 if stage == 4 and depth >= 34 else 2 if stage == 4 else 0)
    per_block = 3 if transformation == "bottleneck" else 2
    assert len(branches) == 1 + per_block * blocks
    native = "basic" if depth < 50 else "bottleneck"
    if stage == 5 and transformation == native:
        assert len(branches) == depth - 1


@pytest.mark.parametrize("name", BODIES)
def test_output_is_a_sixteenth_or_a_thirtysecond(name):
    depth, stage = depth_and_stage(name)
    width = {4: 256, 5: 512}[stage] * (1 if depth < 50 else 4)
    scale = {4: 16, 5: 32}[stage]
    net = refnet.build(name, input=(2, 3, 8, 224, 256))
    assert list(net.outputs.values()) == [(2, width, 8, 224 // scale, 256 // scale)]
    (output,) = net.outputs
    assert output.endswith("_relu")
    strided = refnet.build(name, input=(2, 3, 8, 224, 256), time_stride=True)
    assert next(iter(strided.outputs.values()))[2] == 8 // 2 ** (stage - 2)
    if stage == 5:
        dilated = refnet.build(name, input=(2, 3, 8, 224, 256), dilation=2)
        assert list(dilated.outputs.values()) == [(2, width, 8, 14, 16)]


@pytest.mark.parametrize(
    ("name", "printed", "millions"),
    [
        ("resnet18_classifier", 1.8, 11.7),
        ("resnet34_classifier", 3.6, 21.8),
        ("resnet50_classifier", 3.8, 25.6),
        ("resnet101_classifier", 7.6, 44.5),
        ("resnet152_classifier", 11.3, 60.2),
    ],
)
def test_a_classifier_is_table_1_of_the_paper(name, printed, millions):
    """He et al.; what the table counts and how it shortens, see `refnet.networks.classifier`."""
    net = refnet.build(name, batch_norm=True, training=True)
    counted = ("conv3d", "linear", "batch_norm_training")
    multiply_adds = sum(row.multiply_adds for row in trace(net) if row.op in counted)
    assert int(multiply_adds / 1e8) / 10 == printed
    learnt = sum(size(shape) for param, shape in net.params.items() if net.domain(param).draw is None)
    assert abs(learnt / 1e6 - millions) < 0.06
    sizes = [net.shape(f"{blob}_relu")[2:] for blob in ("conv1", *last_blocks(name))]
    assert sizes == [(1, n, n) for n in (112, 56, 28, 14, 7)]
    assert net.shape("pool1")[3:] == (56, 56) and net.shape("pool5")[2:] == (1, 1, 1)
    assert net.outputs == {"prob": (1, 1000), "loss": ()}


def last_blocks(name):
    return [f"res{k}_{n - 1}" for k, n in enumerate(ARCHITECTURES[name].block_counts, 2)]


def test_what_the_paper_counts_is_no_rounded_count():
    """ResNet-101 is ResNet-50 and 17 blocks: 3.8 and 7.6 are roundings only of 3.838 to 3.85 billion."""
    fifty, more = (
        sum(row.multiply_adds for row in trace(refnet.build(name)) if row.op in ("conv3d", "linear"))
        for name in ("resnet50_classifier", "resnet101_classifier")
    )
    assert 7.55e9 - (more - fifty) > 3.83e9 and fifty > 3.85e9


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_training_step_of_a_classifier(name):
    """Everything learns, from the loss alone; statistics and labels are given."""
    net = refnet.build(name, input=(2, 3, 1, 32, 32), width_per_group=8, batch_norm=True, training=True)
    given = refnet.fill.params(net) | refnet.fill.inputs(net)
    run = refnet.forward(net, given)
    dy = refnet.fill.output_gradients(net)
    assert dy.keys() == {"loss"} and dy["loss"] == 1
    grads = refnet.backward(run, dy)
    given_only = {p for p in net.params if p.endswith(("_rm", "_riv"))} | {"labels"}
    assert set(grads) == given.keys() - given_only and not grads.blocked
    prob = run.blobs["prob"]
    rows = np.arange(2)
    scores = run.blobs["fc"], given["labels"]
    # The loss and the logarithms of what softmax makes of the same scores, each within its own bound.
    bound = rounding_bound(OPS["cross_entropy"], scores, {})
    relative = (rounding_bound(OPS["softmax"], scores[:1], {}) / prob).max()
    expected = -np.log(prob[rows, given["labels"]]).mean()
    assert_within(run.blobs["loss"], expected, bound + relative + 4 * unit("float64") * expected)
    assert prob.max() < 0.9, "scores that far apart would leave the loss nothing to say"
    # The loss of every class together: the bias's gradient adds up to nothing.
    assert abs(grads["fc_b"].sum()) <= 1000 * 2**-53 * np.abs(grads["fc_b"]).sum()
    mean = run.blobs["conv1"].mean(axis=(0, 2, 3, 4))
    expected = 0.9 * given["res_conv1_bn_rm"] + 0.1 * mean
    bound = rounding_bound(OPS["running_mean"], (run.blobs["conv1"], given["res_conv1_bn_rm"]), {})
    assert_within(run.blobs["res_conv1_bn_running_mean"], expected, 2 * bound)


@pytest.mark.parametrize("link", ["none", "average", "key-frame"])
@pytest.mark.parametrize("name", HEADS)
def test_a_head_over_regions(name, link):
    net = refnet.build(name, input=(2, 3, 4, 32, 48), rois=5, link=link, width_per_group=8)
    frames = 4 if link == "none" else 1
    width = 512 if int(name[10:-6]) < 50 else 2048
    assert net.inputs["rois"] == (5, 1 + 4 * frames)
    assert net.outputs == {"res5_pool": (5, width, frames, 1, 1)}
    assert net.shape("pool5")[2:] == (frames, 14, 14)
    assert net.shape(f"{last_blocks(name)[-1]}_relu") == (5, width, frames, 7, 7)
    fine = refnet.build(name, input=(2, 3, 4, 32, 48), resolution=7)
    assert fine.shape("pool5")[3:] == fine.shape("res5_0_relu")[3:] == (7, 7)
    flow = net.gradient_flow()
    assert "res4_0_branch2a_w" in flow and "rois" not in flow


def test_links_are_what_they_say():
    x = np.arange(2 * 3 * 4 * 2 * 2.0).reshape(2, 3, 4, 2, 2)
    expected = {"average": x.mean(axis=2, keepdims=True), "key-frame": x[:, :, 2:3], "none": x}
    for link, y in expected.items():
        net = refnet.Net()
        name = refnet.networks.time_link.time_link(net, net.input("data", x.shape), link, "link")
        blobs = refnet.forward(net, {"data": x}).blobs if net.nodes else {"data": x}
        assert np.array_equal(blobs[name], y)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet50_classifier", {"input": (1, 3, 2, 32, 32)}, "data size T is 2: expected 1"),
        ("resnet50_classifier", {"classes": 0}, "classes is 0"),
        ("resnet50_classifier", {"time_kernel": 3}, "unknown option of resnet50_classifier 'time_kernel'"),
        ("resnet50_conv4", {"training": True}, "training is True, but batch_norm is False"),
        ("resnet50_conv4", {"batch_norm": 1}, "batch_norm is 1: expected True or False"),
        ("roi_resnet50_conv4", {"resolution": 8}, "resolution is 8: expected 14 or 7"),
        ("roi_resnet50_conv4", {"rois": 0}, "rois is 0"),
        ("roi_resnet50_conv4", {"link": "mean"}, "unknown time link 'mean'"),
        ("roi_resnet50_conv4", {"sampling_ratio": -1}, "sampling_ratio is -1"),
    ],
)
def test_nonsense_beyond_bodies_is_refused(name, options, message):
    with pytest.raises(RefnetError, match=message):
        refnet.build(name, **options)


def test_a_head_needs_a_body():
    pyramid = refnet.build("fpn_resnet18_conv5", input=(1, 3, 1, 32, 32), time_kernel=1)
    with pytest.raises(
        RefnetError, match="the body has outputs fpn_res5_1_sum, .*: expected those of a conv4 body, one"
    ):
        refnet.networks.roi_head.head(pyramid)
    conv4 = refnet.build("resnet18_conv4", input=(1, 3, 2, 32, 32))
    with pytest.raises(RefnetError, match="unknown transformation 'foo'"):
        refnet.networks.roi_head.head(conv4, transformation="foo")
    with pytest.raises(RefnetError, match="time_stride is 2: expected True or False"):
        refnet.networks.roi_head.head(conv4, time_stride=2)
    with pytest.raises(RefnetError, match="expected those of a conv4 body"):
        refnet.networks.roi_head.head(refnet.networks.roi_head.head(conv4))


@pytest.mark.parametrize("freeze_at", [0, 2, 3, 4, 5])
@pytest.mark.parametrize("transformation", ["bottleneck", "basic"])
@pytest.mark.parametrize("name", BODIES)
def test_the_stop_blocks_what_is_before_it(name, transformation, freeze_at):
    _, last = depth_and_stage(name)
    if freeze_at > last:
        with pytest.raises(RefnetError, match="freeze_at is 5: expected 0 or a stage of this body, 2, 3, 4"):
            refnet.build(name, freeze_at=freeze_at)
        return
    net = refnet.build(name, transformation=transformation, freeze_at=freeze_at)
    stops = [node.name for node in net.nodes if node.op == "stop_gradient"]
    assert len(stops) == (freeze_at > 0)
    flow = net.gradient_flow()
    for param in net.params:
        stage = int(param[3]) if param.startswith("res") and param[3].isdigit() else 1
        assert (param in flow) == (stage > freeze_at), param
    assert ("data" in flow) == (freeze_at == 0)
    if freeze_at == last:
        assert list(net.outputs) == stops


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_runs(name):
    """Core against the definitions, at the end of every network; 3x3 kernels see mostly padding there."""
    small = {"input": (1, 3, 1, 32, 32), "width_per_group": 8, "freeze_at": 3, "rois": 2, "time_kernel": 1}
    known = {option: small[option] for option in small if option in (*ARCHITECTURES[name].options, "input")}
    net = refnet.build(name, **known)
    given = refnet.fill.params(net, dtype="float64") | refnet.fill.inputs(net, dtype="float64")
    dy = refnet.fill.output_gradients(net)
    runs = [refnet.forward(net, given, a, keep="outputs") for a in ("reference", "core")]
    assert_all_within(runs[1].blobs, runs[0].blobs, run_bound(net))
    reference, core = (refnet.backward(run, dy) for run in runs)
    assert core.blocked == reference.blocked
    assert "res4_0_branch2a_w" in core and "res3_0_branch2a_w" in core.blocked
    assert_all_within(core, reference, run_bound(net, backward=True))


@pytest.mark.parametrize("name", PYRAMIDS)
def test_a_pyramid_has_five_levels_of_256_channels(name):
    net = refnet.build(name, input=(1, 3, 4, 64, 96))
    n = {k: BLOCKS_OF[name.removeprefix("fpn_")][k - 2] - 1 for k in (2, 3, 4, 5)}
    assert net.outputs == {
        f"fpn_res5_{n[5]}_sum": (1, 256, 4, 2, 3),
        f"fpn_res4_{n[4]}_sum": (1, 256, 4, 4, 6),
        f"fpn_res3_{n[3]}_sum": (1, 256, 4, 8, 12),
        f"fpn_res2_{n[2]}_sum": (1, 256, 4, 16, 24),
        f"fpn_res5_{n[5]}_sum_subsampled_2x": (1, 256, 4, 1, 2),
    }
    coarse, fine = f"fpn_inner_res5_{n[5]}_sum", f"fpn_inner_res4_{n[4]}_sum"
    assert net.params[f"{coarse}_w"][2:] == net.params[f"{fine}_lateral_w"][2:] == (1, 1, 1)
    assert net.params[f"{coarse}_b"] == (256,)
    assert net.params[f"fpn_res2_{n[2]}_sum_w"] == (256, 256, 3, 3, 3)
    nodes = {node.name: node for node in net.nodes}
    assert nodes[fine].inputs == (f"{fine}_lateral", f"{fine}_topdown")
    assert nodes[f"{fine}_topdown"].inputs == (coarse,)
    # The stop behind res2 is what the finest lateral reads; gradients reach its weights, not res2's.
    assert nodes[f"fpn_inner_res2_{n[2]}_sum_lateral"].inputs[0] == f"res2_{n[2]}_stop"
    flow = net.gradient_flow()
    assert f"fpn_inner_res2_{n[2]}_sum_lateral_w" in flow and "res2_0_branch2a_w" not in flow


BLOCKS_OF = {name: architecture.block_counts for name, architecture in ARCHITECTURES.items()}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input": (1, 3, 2, 80, 64)}, "expected twice its size; .* multiples of 32"),
        ({"input": (1, 3, 4, 64, 64), "time_stride": True}, "expected a body without time striding"),
        ({"input": (1, 3, 2, 64, 64), "dilation": 2}, "expected twice its size"),
    ],
)
def test_pyramids_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ShapeError, match=message):
        refnet.build("fpn_resnet18_conv5", **options)


def test_a_pyramid_leaves_its_body_alone():
    small = body(input=(1, 3, 1, 32, 32), block_counts=(1, 1), feat_dims=(4, 4, 8), width_per_group=4)
    before = (list(small.nodes), dict(small.params), dict(small.outputs))
    pyramid = refnet.networks.fpn3d.fpn(small, dim=8, time_kernel=1)
    assert before == (small.nodes, small.params, small.outputs)
    assert pyramid.nodes[: len(small.nodes)] == small.nodes
    with pytest.raises(RefnetError, match="time_kernel is 2"):
        refnet.networks.fpn3d.fpn(small, time_kernel=2)
    with pytest.raises(RefnetError, match="has no stages"):
        refnet.networks.fpn3d.fpn(refnet.Net())


def test_basic_and_bottleneck_wiring_literally():
    net = body(
        input=(1, 3, 4, 32, 32),
        block_counts=(1, 1, 1, 1),
        feat_dims=(8, 8, 16, 16, 32),
        transformation="bottleneck",
        time_stride=True,
        groups=2,
        width_per_group=3,
        stride_1x1=False,
        dilation=2,
        freeze_at=0,
    )
    nodes = {node.name: node for node in net.nodes}
    # The width does not change from the stem to res2, nor from res3 to res4: no projection, no stride.
    assert "res2_0_branch1" not in nodes and "res4_0_branch1" not in nodes
    assert nodes["res4_0_relu"].shape == nodes["res3_0_relu"].shape == (1, 16, 2, 4, 4)
    # res3 strides in 2b, in time too; 2a does not.
    assert nodes["res3_0_branch2a"].shape == (1, 12, 4, 8, 8)
    assert nodes["res3_0_branch2b"].attrs["stride"] == (2, 2, 2)
    assert nodes["res3_0_branch1"].attrs["stride"] == (2, 2, 2)
    assert net.params["res3_0_branch2b_w"] == (12, 6, 3, 3, 3)
    # A dilated res5 projects without stride.
    assert nodes["res5_0_branch2b"].attrs["dilation"] == (1, 2, 2)
    assert nodes["res5_0_branch2b"].attrs["pad"] == (1, 2, 2)
    assert nodes["res5_0_relu"].shape == (1, 32, 2, 4, 4)
    assert list(net.params)[:6] == [
        "conv1_w",
        "res_conv1_bn_s",
        "res_conv1_bn_b",
        "res2_0_branch2a_w",
        "res2_0_branch2a_bn_s",
        "res2_0_branch2a_bn_b",
    ]
    assert net.params["res2_0_branch2b_w"] == (6, 3, 1, 3, 3), "res2 has time kernel 1"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"transformation": "basik"}, "unknown transformation 'basik': did you mean basic"),
        ({"freeze_at": 1}, "freeze_at is 1"),
        ({"freeze_at": True}, "freeze_at is True"),
        ({"time_kernel": 2}, "time_kernel is 2: expected an odd number"),
        ({"time_kernel": 0}, "time_kernel is 0"),
        ({"groups": 0}, "groups is 0"),
        ({"groups": 3, "transformation": "basic"}, "groups is 3: expected a divisor of 192 input and 64"),
        ({"width_per_group": -1}, "width_per_group is -1"),
        ({"dilation": 0}, "dilation is 0"),
        ({"bogus": 1}, "unknown option of resnet18_conv4 'bogus'"),
        ({"input": (1, 3, 8, 224)}, "data has rank 4"),
        ({"input": (1, 4, 8, 224, 224)}, "data size C is 4: expected 3"),
        ({"input": (1, 3, -8, 224, 224)}, "data size T is -8"),
        ({"input": (1, 3, 8, 2.5, 224)}, "data size H is 2.5"),
    ],
)
def test_nonsense_is_refused(options, message):
    with pytest.raises(RefnetError, match=message):
        refnet.build("resnet18_conv4", **options)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "resnet50_conv4",
            {"dilation": 2},
            "dilation is 2: expected 1, only res5 is dilated and this body ends with res4",
        ),
        (
            "resnet18_conv5",
            {"transformation": "basic", "stride_1x1": False},
            "stride_1x1 is False: expected True, a basic block has no 1x1x1 convolution to stride in",
        ),
        ("resnet18_classifier", {"stride_1x1": False}, "a basic block has no 1x1x1 convolution"),
        ("roi_resnet18_conv4", {"transformation": "basic", "stride_1x1": False}, "a basic block has no"),
    ],
)
def test_an_option_that_changes_nothing_is_refused(name, options, message):
    with pytest.raises(ValueRangeError, match=message):
        refnet.build(name, **options)


@pytest.mark.parametrize(
    ("feat_dims", "options", "message"),
    [
        ((4, 8), {"time_kernel": 5}, "time_kernel is 5: expected 3, it acts from res3 on and this body"),
        ((4, 8), {"dilation": 3}, "dilation is 3: expected 1, only res5 is dilated and this body ends"),
        ((4, 8), {"time_stride": True}, "time_stride is True: expected False, no block of res2 strides"),
        ((4, 8, 8), {"stride_1x1": False}, "stride_1x1 is False: expected True, no block of res2, res3"),
        ((4, 4, 4, 4, 8), {"dilation": 2, "time_stride": True}, "no block of res2, res3, res4, res5 strides"),
    ],
)
def test_an_option_that_changes_nothing_in_a_body_is_refused(feat_dims, options, message):
    counts = (1,) * (len(feat_dims) - 1)
    body(block_counts=counts, feat_dims=feat_dims)
    with pytest.raises(ValueRangeError, match=message):
        body(block_counts=counts, feat_dims=feat_dims, **options)


@pytest.mark.parametrize("option", [{"time_stride": True}, {"stride_1x1": False}])
@pytest.mark.parametrize("unstrided", [{"resolution": 7}, {"dilation": 2}, {"out": 256}])
def test_an_option_that_changes_nothing_in_a_head_is_refused(unstrided, option):
    conv4 = refnet.build("resnet18_conv4", input=(1, 3, 2, 32, 32))
    refnet.networks.roi_head.head(conv4, **unstrided)
    refnet.networks.roi_head.head(conv4, **option)
    with pytest.raises(ValueRangeError, match="no block of res5 strides"):
        refnet.networks.roi_head.head(conv4, **unstrided, **option)


VALUES = {
    "transformation": ("bottleneck", "basic"),
    "freeze_at": (3,),
    "time_kernel": (5,),
    "time_stride": (True,),
    "groups": (2,),
    "width_per_group": (8,),
    "stride_1x1": (False,),
    "dilation": (2,),
    "batch_norm": (True,),
    "training": (True,),
    "rois": (3,),
    "resolution": (7,),
    "sampling_ratio": (0,),
    "aligned": (True,),
    "link": ("average",),
    "classes": (10,),
}


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if "18" in name or "50" in name])
def test_every_option_changes_the_net_or_is_refused(name):
    """Each option is added to the defaults, and to every other option."""
    usual = ARCHITECTURES[name].options
    given = {option: next(v for v in VALUES[option] if v != default) for option, default in usual.items()}
    shape = (2, 3, 1 if name in CLASSIFIERS else 2, 32, 32)
    changing = set()
    for first in ({}, *({option: value} for option, value in given.items())):
        plain = built_or_none(name, input=shape, **first)
        for option in given.keys() - first.keys() if plain else ():
            if net := built_or_none(name, input=shape, **first, **{option: given[option]}):
                assert (net.nodes, net.params) != (plain.nodes, plain.params), (first, option)
                changing.add(option)
    never = {"resnet18_conv4": {"dilation"}, "resnet50_conv4": {"dilation"}}
    if name in PYRAMIDS:
        never[name] = {"dilation", "time_stride"}
    assert changing == given.keys() - never.get(name, set())


def built_or_none(name, **options):
    try:
        return refnet.build(name, **options)
    except RefnetError:
        return None


def test_unknown_architectures_are_refused():
    with pytest.raises(RefnetError, match="unknown architecture 'resnet18_conv6': did you mean"):
        refnet.build("resnet18_conv6")


def test_a_net_refuses_what_does_not_fit():
    net = refnet.Net()
    x = net.input("data", (1, 2, 1, 2, 2))
    with pytest.raises(RefnetError, match="'data' is written twice"):
        net.param("data", (1,))
    with pytest.raises(RefnetError, match="unknown operator 'rellu'"):
        net.add("rellu", "y", (x,))
    with pytest.raises(RefnetError, match="unknown blob 'dat'"):
        net.add("relu", "y", ("dat",))
    with pytest.raises(ShapeError, match=r"pool \(max_pool3d\): input size H is 2, 2 with padding: .* 3"):
        net.add("max_pool3d", "pool", (x,), kernel=(1, 3, 3))
    with pytest.raises(ShapeError, match=r"sum \(add\)"):
        net.add("add", "sum", (x,))
    assert net.nodes == [], "a refused node leaves nothing behind"


def test_freeze_points_say_what_is_saved_and_what_is_given_up():
    options = {"input": (1, 3, 2, 32, 32), "width_per_group": 4}

    def net_for(point):
        return refnet.build("resnet18_conv4", freeze_at=point, **options)

    free = net_for(0)
    given = refnet.fill.params(free) | refnet.fill.inputs(free)
    points = freeze_points(net_for, (0, 2, 4), given, refnet.fill.output_gradients)
    nothing, two, everything = points
    assert (nothing.params_share, nothing.gradient_share) == (0, 0)
    assert (everything.params_share, everything.gradient_share, everything.multiply_adds) == (1, 1, 0)
    assert nothing.bytes > two.bytes >= everything.bytes > 0
    assert all(point.seconds > 0 for point in points)
    # Everything by hand: without a stop each product has both gradients, data's included.
    rows = trace(free)
    assert nothing.multiply_adds == 2 * sum(row.multiply_adds for row in rows)
    grads = refnet.backward(refnet.forward(free, given), refnet.fill.output_gradients(free))
    behind = {name for name in free.params if name not in net_for(2).gradient_flow()}
    norm = {name: np.linalg.norm(grads[name].ravel()) for name in free.params}
    share = np.linalg.norm([norm[name] for name in behind]) / np.linalg.norm(list(norm.values()))
    # Two norms of n values each: n + 1 roundings of a sum of squares, halved by the root, and the division's.
    values = sum(size(shape) for shape in free.params.values())
    assert_within(two.gradient_share, share, 2 * (values + 4) * unit("float64") * share)
    assert two.params_share == sum(size(free.params[n]) for n in behind) / sum(
        map(size, free.params.values())
    )
    # With the stop behind res2, its two readers' input gradients are not computed either.
    after = {row.name: row.multiply_adds for row in rows if row.name.startswith(("res3", "res4"))}
    skipped = after["res3_0_branch2a"] + after["res3_0_branch1"]
    assert two.multiply_adds == 2 * sum(after.values()) - skipped


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_seeded_scores_of_a_classifier_are_moderate(name, batch_norm):
    net = refnet.build(name, input=(1, 3, 1, 64, 64), batch_norm=batch_norm)
    given = refnet.fill.params(net) | refnet.fill.inputs(net)
    run = refnet.forward(net, given, keep="outputs")
    assert 1e-3 < run.blobs["prob"].max() < 0.9 and 3 < run.blobs["loss"] < 20


def test_freeze_points_leave_statistics_out():
    options = {"input": (2, 3, 1, 32, 32), "width_per_group": 4, "batch_norm": True}
    for training in (False, True):

        def net_for(point, training=training):
            return refnet.build("resnet18_classifier", freeze_at=point, training=training, **options)

        free = net_for(0)
        given = refnet.fill.params(free) | refnet.fill.inputs(free)
        nothing, two = freeze_points(net_for, (0, 2), given, refnet.fill.output_gradients)
        assert (nothing.params_share, nothing.gradient_share) == (0, 0)
        learnt = [p for p in free.params if not p.endswith(("_rm", "_riv"))]
        behind = [p for p in learnt if p.startswith(("conv1", "res_conv1", "res2"))]
        total = sum(size(free.params[p]) for p in learnt)
        assert two.params_share == sum(size(free.params[p]) for p in behind) / total


def test_trace_adds_up():
    net = refnet.build("resnet18_conv4")
    rows = trace(net)
    assert [row.name for row in rows] == [node.name for node in net.nodes]
    assert sum(row.params for row in rows) == sum(map(size, net.params.values())) == 4857152
    first = rows[0]
    assert (first.inputs, first.output) == (((1, 3, 8, 224, 224),), (1, 64, 8, 112, 112))
    assert first.multiply_adds == 64 * 8 * 112 * 112 * 3 * 49
    flows = {row.name: row.gradient for row in rows}
    assert not flows["res2_1_stop"] and flows["res3_0_branch2a"]


def test_options_of_blocks_may_be_given_by_position():
    """As the signature shows them; what it does not show is refused under the builder's name."""
    shown = list(signature(body).parameters)
    assert shown[:8] == [
        *("input", "block_counts", "feat_dims", "transformation", "freeze_at"),
        *("time_kernel", "time_stride", "groups"),
    ]
    by_position = body((1, 3, 4, 32, 32), (1, 1, 1), (8, 8, 16, 32), "bottleneck", 2, 1, True, 2)
    by_name = body((1, 3, 4, 32, 32), (1, 1, 1), (8, 8, 16, 32), time_kernel=1, time_stride=True, groups=2)
    assert by_position.nodes == by_name.nodes and by_position.params == by_name.params
    with pytest.raises(TypeError, match=r"body\(\) got an unexpected keyword argument 'depth'"):
        body(depth=50)


def test_an_axis_may_have_more_than_two_to_the_31_elements():
    net = refnet.Net()
    x = net.input("data", (1, 1, 1, 1, 2**33))
    net.output(net.add("max_pool3d", "y", (x,), kernel=(1, 1, 8), stride=(1, 1, 8)))
    assert net.outputs == {"y": (1, 1, 1, 1, 2**30)}
    with pytest.raises(ShapeError, match="size of axis 4 is larger than"):
        net.input("more", (1, 1, 1, 1, 2**60))

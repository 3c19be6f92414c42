"""Batch norms and the affines that they fold into: equal to rounding, and where not."""

import numpy as np
import pytest
from support import assert_all_within, run_bound, unit

import refnet
from refnet.errors import RefnetError, UnknownNameError
from refnet.networks import ARCHITECTURES
from refnet.networks.fold import fold

SMALL = {"input": (1, 3, 1, 32, 32), "width_per_group": 8, "time_kernel": 1, "rois": 2}


def built(name, **options):
    known = {k: v for k, v in SMALL.items() if k in (*ARCHITECTURES[name].options, "input")}
    return refnet.build(name, **known, **options)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_network_folds(name):
    net = built(name, batch_norm=True)
    frozen = built(name)
    params = refnet.fill.params(net)
    folded = fold(net, params)
    assert folded.net.nodes == frozen.nodes and folded.net.params == frozen.params
    assert folded.net.inputs == frozen.inputs and folded.net.outputs == frozen.outputs
    assert not folded.kept
    assert set(folded.lost_bits) == {node.name for node in net.nodes if node.op == "batch_norm"}
    assert max(folded.lost_bits.values()) < 0.2  # the fill's |mean| is at most an eighth
    inputs = refnet.fill.inputs(net)
    before, after = (
        refnet.forward(*pair, keep="outputs").blobs
        for pair in ((net, inputs | params), (folded.net, inputs | folded.params))
    )
    assert_all_within(after, before, run_bound(net) * 2 ** max(folded.lost_bits.values()))


def one_norm(epsilon=0.25):
    net = refnet.Net()
    x = net.input("data", (1, 2, 1, 1, 3))
    names = [net.param(f"bn_{ending}", (2,)) for ending in ("s", "b", "rm", "riv")]
    net.output(net.add("batch_norm", "bn", (x, *names), epsilon=epsilon))
    values = ([2.0, 6], [1.0, 1], [4.0, 0], [3.75, 8.75])
    return net, {name: np.array(value) for name, value in zip(names, values, strict=True)}


def test_folding_literally():
    """Deviations 2 and 3: s' = 1, 2 and b' = 1 - 4, 1."""
    net, params = one_norm()
    folded = fold(net, params)
    assert [node.op for node in folded.net.nodes] == ["affine"]
    assert {name: value.tolist() for name, value in folded.params.items()} == {
        "bn_s": [1.0, 2.0],
        "bn_b": [-3.0, 1.0],
    }
    # A quotient, a sum and a logarithm, each rounded once or to within a unit in the last place.
    assert abs(folded.lost_bits["bn"] - np.log2(3)) <= 4 * unit("float64") * np.log2(3)
    assert params["bn_s"].tolist() == [2.0, 6.0], "what was given is left as it was"


def test_where_folding_costs_digits_is_said():
    """A mean of 2**30 deviations: x - mean is exact, s' x + b' is rounded at 2**31 times its size."""
    net, params = one_norm()
    params["bn_rm"] = np.array([2.0**31, 0])
    params["bn_s"] = np.array([2.0 / 3, 6])
    data = np.zeros((1, 2, 1, 1, 3))
    data[0, 0, 0, 0] = 2.0**31 + np.array([1.0, 3, 5])
    folded = fold(net, params)
    exact = refnet.forward(net, {"data": data, **params}).blobs["bn"]
    rough = refnet.forward(folded.net, {"data": data, **folded.params}).blobs["bn"]
    lost = np.log2(np.abs(rough - exact)[0, 0].max() / 2**-53)
    assert 20 < lost <= folded.lost_bits["bn"] + 2 and folded.lost_bits["bn"] >= 30
    assert np.array_equal(rough[0, 1], exact[0, 1])


def test_what_cannot_be_folded_is_kept_and_said():
    net = built("resnet18_conv4", batch_norm=True, training=True)
    folded = fold(net, refnet.fill.params(net))
    assert folded.net.nodes == net.nodes and folded.net.params == net.params
    assert "batch's own statistics" in folded.kept["res_conv1_bn"]
    assert len(folded.kept) == sum(node.op == "batch_norm_training" for node in net.nodes)

    net, params = one_norm()
    net.output(net.add("affine", "again", ("bn", "bn_s", "bn_b")))
    assert fold(net, params).kept == {"bn": "bn_s is read elsewhere too"}


def test_nonsense_is_refused():
    net, params = one_norm()
    with pytest.raises(UnknownNameError, match="parameter 'bn_riv'"):
        fold(net, {name: value for name, value in params.items() if name != "bn_riv"})
    with pytest.raises(RefnetError, match="bn_b is float32: expected float64, the dtype of"):
        fold(net, params | {"bn_b": np.ones(2, "float32")})
    with pytest.raises(RefnetError, match="bn_rm holds NaN"):
        fold(net, params | {"bn_rm": np.array([np.nan, 1])})
    with pytest.raises(UnknownNameError, match="parameter 'bogus'"):
        fold(net, params | {"bogus": np.ones(2)})
    with pytest.raises(RefnetError, match="bn_s has shape 1: expected 2"):
        fold(net, params | {"bn_s": np.ones(1)})
    with pytest.raises(RefnetError, match="bn_riv: variance of channel 1 is -1.0: expected none below 0"):
        fold(net, params | {"bn_riv": np.array([1.0, -1])})

"""2D weights in 3D networks: the four modes, and which of them reproduce the 2D network."""

import numpy as np
import pytest
from support import whole_numbers

import refnet
from refnet.arithmetic import reference
from refnet.errors import RefnetError
from refnet.networks.inflate import MODES, inflate, inflate_params


def test_the_modes_literally():
    w = np.array([[[[6.0, -3.0]]]])
    assert inflate(w, 3, "mean-repeat")[0, 0, :, 0].tolist() == [[2.0, -1.0]] * 3
    assert inflate(w, 3, "repeat")[0, 0, :, 0].tolist() == [[6.0, -3.0]] * 3
    assert inflate(w, 3, "center-only")[0, 0, :, 0].tolist() == [[0, 0], [6.0, -3.0], [0, 0]]
    noisy = inflate(w, 3, "center-only-rest-rand")[0, 0, :, 0]
    assert noisy[1].tolist() == [2.0, -1.0]
    assert noisy[[0, 2]].all() and np.abs(noisy[[0, 2]]).max() <= 6 * 0.001 / 3
    for mode in MODES:
        assert np.array_equal(inflate(w, 1, mode)[:, :, 0], w)
        assert inflate(w.astype("float32"), 3, mode).dtype == "float32"


def test_the_noise_has_the_deviation_it_should():
    w = np.zeros((64, 64, 3, 3))
    noise = inflate(w, 5, "center-only-rest-rand", name="res3_0_branch2b_w")[:, :, [0, 1, 3, 4]] * 5
    # Both within 5 standard errors: sigma / sqrt(n) of the mean, sigma / sqrt(2 n) of the deviation.
    assert abs(noise.mean()) <= 5 * 0.001 / np.sqrt(noise.size)
    assert abs(noise.std() - 0.001) <= 5 * 0.001 / np.sqrt(2 * noise.size)
    other = inflate(w, 5, "center-only-rest-rand", name="res3_1_branch2b_w")
    assert not np.array_equal(other[:, :, 0] * 5, noise[:, :, 0])
    again = inflate(w, 5, "center-only-rest-rand", name="res3_0_branch2b_w")
    assert np.array_equal(again[:, :, 0] * 5, noise[:, :, 0])


def test_one_convolution_on_equal_frames_frame_by_frame():
    """Integers divisible by 3: center-only is exact everywhere, mean-repeat away from the ends."""
    rng = np.random.default_rng(0)
    w = 3.0 * rng.integers(-3, 4, (4, 2, 3, 3))
    frame = rng.integers(-3, 4, (1, 2, 1, 6, 5)).astype(float)
    flat, _ = reference.conv3d.forward(frame, w[:, :, None], pad=(0, 1, 1))
    clip = np.repeat(frame, 5, axis=2)

    def per_frame(mode):
        y, _ = reference.conv3d.forward(clip, inflate(w, 3, mode), pad=(1, 1, 1))
        return [y[:, :, t : t + 1] for t in range(5)]

    assert all(np.array_equal(y, flat) for y in per_frame("center-only"))
    mean = per_frame("mean-repeat")
    assert [np.array_equal(y, flat) for y in mean] == [False, True, True, True, False]
    assert np.array_equal(3 * mean[0], 2 * flat), "the first frame misses one of three shares"
    assert np.array_equal(per_frame("repeat")[2], 3 * flat)
    assert not any(np.array_equal(y, flat) for y in per_frame("center-only-rest-rand"))


@pytest.mark.parametrize(("frames", "kept"), [(9, True), (8, False)])
def test_a_network_on_equal_frames(frames, kept):
    """Four kernels of 3 in a row reach 4 frames to each side: 9 frames keep the middle one clear."""
    options = {
        "block_counts": (1, 2, 2),
        "feat_dims": (4, 4, 8, 16),
        "width_per_group": 4,
        "freeze_at": 0,
    }
    flat = refnet.networks.resnet3d.body(input=(1, 3, 1, 32, 32), time_kernel=1, **options)
    deep = refnet.networks.resnet3d.body(input=(1, 3, frames, 32, 32), time_kernel=3, **options)
    params = whole_numbers(flat)
    data = params.pop("data")
    for name, shape in deep.params.items():
        if len(shape) == 5 and shape[2] == 3:
            params[name] = 3 * params[name]  # so that a third is a whole number too
    (output,) = flat.outputs
    expected = refnet.forward(flat, {"data": data, **params}).blobs[output][:, :, 0]
    clip = np.repeat(data, frames, axis=2)
    same = {}
    for mode in MODES:
        run = refnet.forward(deep, {"data": clip, **inflate_params(params, deep, mode)})
        same[mode] = np.array_equal(run.blobs[output][:, :, frames // 2], expected)
    assert 2 * np.count_nonzero(expected) > expected.size
    assert same == dict.fromkeys(MODES, False) | {"center-only": True, "mean-repeat": kept}


@pytest.mark.parametrize(
    ("shape", "kernel", "mode", "message"),
    [
        ((1, 1, 3, 3), 2, "repeat", "time_kernel is 2: expected an odd number"),
        ((1, 1, 3, 3), 3, "mean", "unknown mode of inflation 'mean': expected one of mean-repeat"),
        ((1, 1, 3), 3, "repeat", "w has rank 3"),
        ((1, 1, 3, 3, 3), 3, "repeat", "w has shape 1x1x3x3x3: expected one time step"),
    ],
)
def test_nonsense_is_refused(shape, kernel, mode, message):
    with pytest.raises(RefnetError, match=message):
        inflate(np.zeros(shape), kernel, mode)


def test_parameters_that_are_missing_or_of_another_network_are_refused():
    net = refnet.build("resnet18_conv4", input=(1, 3, 2, 32, 32), width_per_group=4)
    flat = refnet.build("resnet18_conv4", input=(1, 3, 1, 32, 32), width_per_group=4, time_kernel=1)
    params = refnet.fill.params(flat)
    assert {k: v.shape for k, v in inflate_params(params, net).items()} == net.params
    with pytest.raises(RefnetError, match="unknown parameter 'conv1_w'"):
        inflate_params({k: v for k, v in params.items() if k != "conv1_w"}, net)
    with pytest.raises(RefnetError, match="conv1_w has shape 2x3x1x7x7: expected 64x3x1x7x7"):
        inflate_params({**params, "conv1_w": params["conv1_w"][:2]}, net)

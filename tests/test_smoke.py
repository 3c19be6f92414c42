"""A wheel's first breath; this file is also run on its own, away from the sources."""

import json
import subprocess
import sys

import numpy as np

import refnet
from refnet.arithmetic import core, reference


def test_kernels_are_there_and_right():
    x, w = np.arange(48.0).reshape(1, 2, 2, 3, 4), np.ones((3, 2, 1, 3, 3))
    ours, theirs = (a.conv3d.forward(x, w, pad=(0, 1, 1))[0] for a in (core, reference))
    assert np.array_equal(ours, theirs)
    # The middle outputs of frame 0: sums of 3x3 windows over both channels.
    assert ours[0, 0, 0, 1, 1] == sum(x[0, :, 0, 0:3, 0:3].ravel())


def test_a_network_runs():
    net = refnet.build("resnet18_conv4", input=(1, 3, 1, 32, 32))
    run = refnet.forward(net, refnet.fill.params(net) | refnet.fill.inputs(net))
    grads = refnet.backward(run, refnet.fill.output_gradients(net))
    assert len(grads) == 42 and len(grads.blocked) == 22


def test_the_command_line_answers():
    command = [sys.executable, "-m", "refnet", "info", "--json"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert found["refnet"] == refnet.__version__
    assert found["kernels"]["conv3d"] == "Cython"

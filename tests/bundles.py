"""Small networks of every family, and the SHA-256 of all that each of them computes, in core and exact.

`hashes.json` holds the right ones, `test_hashes.py` compares. Where there is no pytest, say under emulation,

    python tests/bundles.py

compares too, and exits with 1 where one differs. A hash may change for one reason: what an operator or a
fill is defined to compute has changed, the order of a sum of core's for instance, and CHANGELOG.md says so.
Then

    python tests/bundles.py --write

writes them anew. Another processor, compiler, number of threads or version of NumPy is no reason.
"""

import json
import sys
from collections import Counter
from hashlib import sha256
from itertools import product
from pathlib import Path

import refnet
from refnet.golden.bundle import sha
from refnet.net import Net
from refnet.networks.classifier import classifier
from refnet.networks.fpn3d import fpn
from refnet.networks.resnet3d import body
from refnet.networks.roi_head import head

FILE = Path(__file__).with_name("hashes.json")
ARITHMETICS = ("core", "exact")  # whose bits belong to every machine
DTYPES = ("float32", "float64")
CLIP, IMAGES = (1, 3, 2, 16, 16), (2, 3, 1, 16, 16)
CONV4, CONV5 = (4, 4, 8, 16), (4, 4, 8, 16, 32)


def narrow(counts, feat_dims, input=CLIP, **options):
    return body(input, counts, feat_dims, **{"width_per_group": 4} | options)


def regions(body_options, **options):
    small = narrow((1, 1, 1), CONV4, **body_options)
    return head(small, 2, 1, 32, width_per_group=4, **options)


def images(counts, **options):
    return classifier(IMAGES, counts, CONV5, classes=7, width_per_group=4, **options)


def moves():
    """What no network of the catalog has: time moved into batch and channels and back, dropout."""
    net = Net()
    x = net.input("data", (2, 3, 4, 5, 6))
    x = net.add("time_to_channels", "channels", (x,))
    x = net.add("channels_to_time", "time", (x,), frames=4)
    x = net.add("time_to_batch", "batch", (x,))
    x = net.add("batch_to_time", "clips", (x,), frames=4)
    x = net.add("average_pool3d", "pool", (x,), kernel=(2, 3, 2), stride=(1, 2, 2), pad=(0, 1, 0))
    x = net.add("dropout", "dropped", (x, net.input("mask", net.shape(x))), ratio=0.5)
    net.output(net.add("upsample_nearest", "upsampled", (x,), scale=3))
    return net


NETS = {
    "resnet18_conv4": lambda: refnet.build("resnet18_conv4", input=CLIP),
    "18 conv4": lambda: narrow((2, 2, 2), CONV4),
    "18 conv4, basic": lambda: narrow((2, 2, 2), CONV4, transformation="basic", freeze_at=3),
    "18 conv5": lambda: narrow((2, 2, 2, 2), CONV5, freeze_at=0, time_kernel=1),
    "50 conv4, time strides": lambda: narrow((3, 4, 6), CONV4, (1, 3, 5, 16, 16), time_stride=True),
    "50 conv5, basic": lambda: narrow((3, 4, 6, 3), CONV5, transformation="basic", freeze_at=0),
    "groups, dilation, 3x3 strides": lambda: narrow(
        (1, 1, 1, 2), CONV5, (1, 3, 3, 22, 19), groups=3, width_per_group=2, dilation=2, stride_1x1=False
    ),
    "large planes": lambda: narrow((1,), (12, 20), (1, 3, 5, 64, 66), time_kernel=1, freeze_at=0),
    "long sums": lambda: narrow((1, 1), (40, 40, 24), width_per_group=48, freeze_at=0, time_kernel=5),
    "batch norm": lambda: narrow((1, 1, 1), CONV4, batch_norm=True, freeze_at=0),
    "batch norm, training": lambda: narrow((1, 1, 1), CONV4, batch_norm=True, training=True, freeze_at=0),
    "pyramid": lambda: fpn(narrow((1, 1, 1, 1), CONV5, (1, 3, 2, 32, 64), freeze_at=0), dim=8),
    "regions": lambda: regions({"freeze_at": 0}, resolution=14),
    "regions, averaged": lambda: regions({}, resolution=7, sampling_ratio=0, aligned=True, link="average"),
    "regions, key frame": lambda: regions({"input": (2, 3, 3, 32, 32)}, resolution=7, link="key-frame"),
    "images": lambda: images((2, 2, 2, 2)),
    "images, batch norm": lambda: images((1, 1, 1, 1), transformation="bottleneck", batch_norm=True),
    "training step": lambda: images((2, 2, 2, 2), batch_norm=True, training=True),
    "moves": moves,
}


def digest(arrays):
    """SHA-256 of tensors in their order, by name, dtype, shape and SHA-256."""
    found = sha256()
    for name, array in arrays.items():
        found.update(f"{name} {array.dtype} {array.shape} {sha(array)}\n".encode())
    return found.hexdigest()


def hashes(arithmetic, name, dtype):
    """Of what a network is given, of its blobs, and of its gradients."""
    net = NETS[name]()
    given = refnet.fill.inputs(net, dtype=dtype) | refnet.fill.params(net, dtype=dtype)
    run = refnet.forward(net, given, arithmetic)
    gradients = refnet.backward(run, refnet.fill.output_gradients(net, dtype=dtype))
    return {"given": digest(given), "blobs": digest(run.blobs), "gradients": digest(gradients)}


def right():
    """The hashes that every machine must compute."""
    return json.loads(FILE.read_text())


def operators():
    """How often each operator is in one of the networks."""
    return Counter(node.op for net in NETS.values() for node in net().nodes)


def main(arguments):
    found = {
        a: {name: {dtype: hashes(a, name, dtype) for dtype in DTYPES} for name in NETS} for a in ARITHMETICS
    }
    if arguments == ["--write"]:
        FILE.write_text(json.dumps(found, indent=1) + "\n")
        return 0
    expected = right()
    bad = [
        f"{arithmetic}, {name}, {dtype}: {part}"
        for arithmetic, name, dtype in product(ARITHMETICS, NETS, DTYPES)
        for part, value in found[arithmetic][name][dtype].items()
        if value != expected.get(arithmetic, {}).get(name, {}).get(dtype, {}).get(part)
    ]
    print(
        "\n".join(f"other bits: {what}" for what in bad) or f"{len(NETS)} networks: the bits of hashes.json"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The 2D classifiers of He et al., *Deep Residual Learning*, arXiv:1512.03385, Table 1, with their loss.

2D is T = 1 and time kernel 1. At 224x224 the table's output sizes are 112, 56, 28, 14, 7 and 1, and its
multiply-adds 1.8, 3.6, 3.8, 7.6, 11.3 x 10**9. What the table counts can only be inferred. One count
gives all five numbers, truncated after the first decimal: the convolutions, projection shortcuts included,
the fully connected layer, and two multiply-adds a value for each batch norm (normalise; scale and shift)
are 1.819, 3.671, 3.879, 7.602, 11.326. The convolutions and the fully connected layer alone are 1.814,
3.664, 3.858, 7.570, 11.282: truncated, the last two become 7.5 and 11.2; rounded, the second and third
become 3.7 and 3.9. No count that includes all convolutions of ResNet-50 rounds to 3.8.
"""

from collections.abc import Sequence
from typing import Any

from refnet.errors import ShapeError
from refnet.net import Net
from refnet.networks import resnet3d
from refnet.networks.layers import linear
from refnet.shapes import Shape, volume, whole


@resnet3d.takes(resnet3d.BlockOptions, but=("time_kernel", "time_stride"))
def classifier(
    input: Shape = (1, 3, 1, 224, 224),
    block_counts: Sequence[int] = (2, 2, 2, 2),
    feat_dims: Sequence[int] = (64, 64, 128, 256, 512),
    transformation: str = "basic",
    classes: int = 1000,
    freeze_at: int = 0,
    **block_options: Any,
) -> Net:
    """Build a classifier: a body with time kernel 1, average pool, fully connected layer, softmax, loss.

    Parameters
    ----------
    input : (N, 3, 1, H, W)
        Shape of the input blob `data`; the integers `labels` are (N,).
    classes : int
    block_counts, feat_dims, freeze_at
        See `refnet.networks.resnet3d.body`.
    transformation, **block_options
        See `refnet.networks.resnet3d.BlockOptions`; what acts along T is no option of a classifier.

    Returns
    -------
    Net
        With the inputs `data` and `labels` and the outputs `prob`, (N, classes), and `loss`, ().

    Raises
    ------
    RefnetError
        If an option is none of the above or changes nothing, or the input does not fit; the message
        says which.
    """
    if volume("data", input)[2] != 1:
        raise ShapeError(f"data size T is {input[2]}: expected 1, a classifier of the paper is 2D")
    net = resnet3d.body(
        input,
        block_counts,
        feat_dims,
        transformation,
        freeze_at,
        time_kernel=1,
        time_stride=False,
        **block_options,
    )
    (x,) = net.outputs
    net.outputs.clear()
    labels = net.input("labels", input[:1])
    x = net.add("global_average_pool", "pool5", (x,), over_time=True)
    x = linear(net, x, "fc", whole("classes", classes, 1))
    net.output(net.add("softmax", "prob", (x,)))
    net.output(net.add("cross_entropy", "loss", (x, labels)))
    return net

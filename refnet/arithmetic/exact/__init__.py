"""Exact arithmetic: every element is the correctly rounded value of its formula, whatever the order.

One file an operator holds its kernel; `door` refuses what is not finite, `fallback` counts what needed
integers. What computes nothing, or chooses, is core's. Norms, softmax, losses and dropout are defined in
steps, which their files state.
"""

from refnet.arithmetic.core import core
from refnet.arithmetic.exact import (
    add,
    affine,
    average_pool3d,
    batch_norm,
    batch_norm_training,
    conv3d,
    cross_entropy,
    dropout,
    global_average_pool,
    linear,
    max_pool3d,
    roi_align,
    running_mean,
    running_variance,
    softmax,
    upsample_nearest,
)
from refnet.arithmetic.exact.door import refusing
from refnet.arithmetic.table import Arithmetic
from refnet.environment import in_default

KERNELS = {
    "conv3d": conv3d.KERNEL,
    "affine": affine.KERNEL,
    "max_pool3d": max_pool3d.KERNEL,
    "add": add.KERNEL,
    "linear": linear.KERNEL,
    "average_pool3d": average_pool3d.KERNEL,
    "global_average_pool": global_average_pool.KERNEL,
    "upsample_nearest": upsample_nearest.KERNEL,
    "softmax": softmax.KERNEL,
    "cross_entropy": cross_entropy.KERNEL,
    "batch_norm": batch_norm.KERNEL,
    "batch_norm_training": batch_norm_training.KERNEL,
    "running_mean": running_mean.KERNEL,
    "running_variance": running_variance.KERNEL,
    "dropout": dropout.KERNEL,
    "roi_align": roi_align.KERNEL,
}
# Nothing is rounded: what is handed on is what was given.
MOVES = (
    "relu",
    "time_to_channels",
    "time_to_batch",
    "channels_to_time",
    "batch_to_time",
    "stop_gradient",
    "slice_keyframe",
)

# Of these the whole formula is rounded once, by kernels of its own, forward and backward. (Of RoIAlign too,
# but at samples that no other arithmetic has.)
ROUNDED_ONCE = frozenset({"conv3d", "linear", "affine", "add", "average_pool3d", "global_average_pool"})

exact = Arithmetic(
    "exact",
    {
        op: refusing(op, kernel).in_default_environment()
        for op, kernel in (KERNELS | {op: core.kernels[op] for op in MOVES}).items()
    },
    total=in_default(add.gradient),
)

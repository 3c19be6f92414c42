"""The table of operators. A new operator is one new file and one line here."""

from refnet.op import Op
from refnet.ops import (
    add,
    affine,
    average_pool3d,
    batch_norm,
    batch_norm_training,
    batch_to_time,
    channels_to_time,
    conv3d,
    cross_entropy,
    dropout,
    global_average_pool,
    linear,
    max_pool3d,
    relu,
    roi_align,
    running_mean,
    running_variance,
    slice_keyframe,
    softmax,
    stop_gradient,
    time_to_batch,
    time_to_channels,
    upsample_nearest,
)

OPS: dict[str, Op] = {
    op.name: op
    for op in (
        conv3d.OP,
        affine.OP,
        relu.OP,
        add.OP,
        max_pool3d.OP,
        average_pool3d.OP,
        global_average_pool.OP,
        upsample_nearest.OP,
        linear.OP,
        softmax.OP,
        cross_entropy.OP,
        batch_norm.OP,
        batch_norm_training.OP,
        running_mean.OP,
        running_variance.OP,
        dropout.OP,
        roi_align.OP,
        time_to_channels.OP,
        channels_to_time.OP,
        time_to_batch.OP,
        batch_to_time.OP,
        slice_keyframe.OP,
        stop_gradient.OP,
    )
}

"""The named problems that speed is measured on: those of the networks at 1x3x8x224x224."""

from refnet.op import Case

CONV3D = (
    Case(
        "stem 3->64 1x7x7/2 at 8x224x224",
        ((1, 3, 8, 224, 224), (64, 3, 1, 7, 7)),
        {"stride": (1, 2, 2), "pad": (0, 3, 3)},
    ),
    Case("64->64 1x3x3 at 8x56x56", ((1, 64, 8, 56, 56), (64, 64, 1, 3, 3)), {"pad": (0, 1, 1)}),
    Case("128->128 3x3x3 at 8x28x28", ((1, 128, 8, 28, 28), (128, 128, 3, 3, 3)), {"pad": (1, 1, 1)}),
    Case("256->256 3x3x3 at 8x14x14", ((1, 256, 8, 14, 14), (256, 256, 3, 3, 3)), {"pad": (1, 1, 1)}),
    Case("1024->256 1x1x1 at 8x14x14", ((1, 1024, 8, 14, 14), (256, 1024, 1, 1, 1))),
    Case("512->512 3x3x3 at 8x7x7", ((1, 512, 8, 7, 7), (512, 512, 3, 3, 3)), {"pad": (1, 1, 1)}),
    Case("64->256 1x1x1 at 8x56x56", ((1, 64, 8, 56, 56), (256, 64, 1, 1, 1))),
    Case("256->512 1x1x1/2 at 8x56x56", ((1, 256, 8, 56, 56), (512, 256, 1, 1, 1)), {"stride": (1, 2, 2)}),
    Case(
        "64->128 3x3x3/2 at 8x56x56",
        ((1, 64, 8, 56, 56), (128, 64, 3, 3, 3)),
        {"stride": (1, 2, 2), "pad": (1, 1, 1)},
    ),
    Case(
        "256->256 3x3x3 in 32 groups at 8x14x14",
        ((1, 256, 8, 14, 14), (256, 8, 3, 3, 3)),
        {"pad": (1, 1, 1), "groups": 32},
    ),
    Case("4 of 128->128 3x3x3 at 4x28x28", ((4, 128, 4, 28, 28), (128, 128, 3, 3, 3)), {"pad": (1, 1, 1)}),
)

# Work against time: a problem, and what of it is doubled.
BASE = CONV3D[2]
DOUBLED = {"N": (2, 1, 1, 1, 1), "T": (1, 1, 2, 1, 1), "HxW": (1, 1, 1, 1, 2)}

STEM = (1, 64, 8, 112, 112)
RES2, RES3, RES5 = (1, 256, 8, 56, 56), (1, 512, 8, 28, 28), (1, 2048, 8, 7, 7)
PYRAMID = (1, 256, 8, 28, 28)


def _one(name: str, *shapes: tuple[int, ...], **attrs: object) -> Case:
    sizes = "x".join(map(str, shapes[0]))
    return Case(f"{name} {sizes}", shapes, attrs)


OPERATORS = {
    "affine": (_one("affine", STEM, (64,), (64,)), _one("affine", RES2, (256,), (256,))),
    "relu": (_one("relu", STEM), _one("relu", RES3)),
    "add": (_one("add", RES2, RES2),),
    "max_pool3d": (_one("max pool", STEM, kernel=(1, 3, 3), stride=(1, 2, 2), pad=(0, 1, 1)),),
    "average_pool3d": (_one("average pool over time", (1, 1024, 8, 14, 14), kernel=(8, 1, 1)),),
    "global_average_pool": (
        _one("global average pool", (100, 2048, 1, 7, 7)),
        _one("global average pool", (32, 2048, 1, 7, 7), over_time=True),
    ),
    "upsample_nearest": (_one("upsample", PYRAMID),),
    "linear": (_one("linear", (32, 2048), (1000, 2048), (1000,)),),
    "softmax": (_one("softmax", (32, 1000)),),
    "cross_entropy": (_one("cross-entropy", (32, 1000), (32,)),),
    "batch_norm": (_one("batch norm", STEM, *[(64,)] * 4), _one("batch norm", RES2, *[(256,)] * 4)),
    "batch_norm_training": (
        _one("batch norm, training", STEM, (64,), (64,)),
        _one("batch norm, training", RES5, (2048,), (2048,)),
    ),
    "running_mean": (_one("running mean", RES2, (256,)),),
    "running_variance": (_one("running variance", RES2, (256,)),),
    "dropout": (_one("dropout", (32, 2048), (32, 2048)), _one("dropout", RES3, RES3)),
    "roi_align": (
        _one(
            "RoIAlign of 20 tubes,",
            (1, 256, 8, 14, 14),
            (20, 33),
            output=(14, 14),
            spatial_scale=1 / 16,
            sampling_ratio=2,
        ),
    ),
    "time_to_channels": (_one("time to channels", RES3),),
    "channels_to_time": (_one("channels to time", (1, 4096, 1, 28, 28), frames=8),),
    "time_to_batch": (_one("time to batch", RES3),),
    "batch_to_time": (_one("batch to time", (8, 512, 1, 28, 28), frames=8),),
    "slice_keyframe": (_one("key frame", RES3),),
}

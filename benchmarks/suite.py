"""Time and peak memory of refnet, from commit to commit: `asv run --config benchmarks/asv.conf.json`."""

from refnet.arithmetic import core
from refnet.bench import own
from refnet.bench.problems import BASE, CONVOLUTIONS
from refnet.inputs import fill
from refnet.networks import build

PROBLEMS = {problem.name: problem for problem in CONVOLUTIONS}
DTYPES = ["float64", "float32"]


class Benchmark:
    """One process for each, and at most five calls."""

    rounds, repeat, number, warmup_time = 1, (1, 5, 10.0), 1, 0.5


class Convolution(Benchmark):
    """The named problems, forward, for dx and for dw."""

    params = (list(PROBLEMS), BASE.directions, DTYPES)
    param_names = ("problem", "direction", "dtype")

    def setup(self, problem, direction, dtype):
        found = PROBLEMS[problem]
        self.call = own.operator(core, found, *found.arrays(dtype))[direction]

    def time_one(self, *params):
        self.call()

    def peakmem_one(self, *params):
        self.call()


class Body(Benchmark):
    """A whole body forward and backward, only outputs and what backward needs kept."""

    params = (["basic", "bottleneck"], DTYPES)
    param_names = ("transformation", "dtype")

    def setup(self, transformation, dtype):
        net = build("resnet18_conv4", transformation=transformation, time_kernel=3, freeze_at=2)
        given = fill.params(net, dtype=dtype) | fill.inputs(net, dtype=dtype)
        self.call = own.train(net, given, fill.output_gradients(net, dtype=dtype))

    def time_step(self, *params):
        self.call()

    def peakmem_step(self, *params):
        self.call()

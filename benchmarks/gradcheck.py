"""What `refnet.gradcheck.check_net` takes, in units of core's forward and backward pass on the same net.

    python benchmarks/gradcheck.py [--rounds 5] [--input 1x3x8x224x224]

Of resnet18_conv4, both transformations: in float32 with a convolution replaced (by core's own, so that both
sides multiply as fast), judged by core in float64; in float64 core itself, judged by reference. In each
round the pass and the check take turns; a row has the median of their ratios, the largest, and that of the
first check in the process, which meets cold memory. A check whose report is not ok ends the run.
"""

import argparse
from statistics import median
from time import perf_counter

import refnet
from refnet.arithmetic import Kernel, core
from refnet.gradcheck import check_net


def main() -> None:
    """Measure, and print a table in Markdown."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--input", default="1x3x8x224x224")
    given = options.parse_args()
    shape = tuple(map(int, given.input.split("x")))
    own = core.kernels["conv3d"]
    replaced = core.replace(conv3d=Kernel(lambda *a, **b: own.forward(*a, **b), lambda *a: own.backward(*a)))
    print("| resnet18_conv4 | arithmetic | pass, s | check / pass, median | largest | first |")
    print("|---|---|---|---|---|---|")
    for transformation in ("basic", "bottleneck"):
        net = refnet.build("resnet18_conv4", input=shape, transformation=transformation)
        for arithmetic, dtype in ((replaced, "float32"), (core, "float64")):
            seconds, ratios = measured(net, arithmetic, dtype, given.rounds)
            print(
                f"| {transformation} | {arithmetic.name}, {dtype} | {median(seconds):.2f} "
                f"| {median(ratios[1:]):.2f} | {max(ratios[1:]):.2f} | {ratios[0]:.2f} |",
                flush=True,
            )


def measured(net, arithmetic, dtype, rounds):
    """Seconds of the pass, and ratios of the check to it; the first round warms up."""
    blobs = {**refnet.fill.inputs(net, 0, dtype), **refnet.fill.params(net, 0, dtype)}
    dy = refnet.fill.output_gradients(net, 0, dtype)
    seconds, ratios = [], []
    refnet.backward(refnet.forward(net, blobs), dy)
    for _ in range(rounds + 1):
        begin = perf_counter()
        refnet.backward(refnet.forward(net, blobs), dy)
        middle = perf_counter()
        report = check_net(net, blobs, arithmetic)
        end = perf_counter()
        if not report.ok:
            raise SystemExit(repr(report))
        seconds.append(middle - begin)
        ratios.append((end - middle) / (middle - begin))
    return seconds[1:], ratios


if __name__ == "__main__":
    main()

"""What `refnet.certify.certify` takes, in units of core's forward and backward pass in float64.

    python benchmarks/certify.py [--rounds 5] [--input 1x3x8x224x224] [--transformation basic]

Of resnet18_conv4: a float32 candidate with every value and every gradient dumped, core's own. In each round
the pass and the certification take turns; a row has the median of their ratios, the largest, and that of the
first in the process, which meets cold memory. Peaks of memory are those of processes of their own: of the
pass alone, and of certification, with the candidate. A report that is not ok ends the run.
"""

import argparse
import multiprocessing
from collections.abc import Mapping
from statistics import median
from time import perf_counter
from typing import Any

import refnet
from refnet.arithmetic import core
from refnet.bench.peak import largest
from refnet.certify import certify
from refnet.inputs.candidate import Candidate
from refnet.net import Net, learns_from

TRANSFORMATIONS = ("basic", "bottleneck")


def main() -> None:
    """Measure, and print a table in Markdown."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--input", default="1x3x8x224x224")
    options.add_argument("--transformation", choices=TRANSFORMATIONS, help="one of the two")
    given = options.parse_args()
    shape = tuple(map(int, given.input.split("x")))
    print(
        "| resnet18_conv4 | pass, s | certify / pass, median | largest | first | peak, MiB | certify / pass |"
    )
    print("|---|---|---|---|---|---|---|")
    for name in [given.transformation] if given.transformation else TRANSFORMATIONS:
        seconds, ratios = measured(name, shape, given.rounds)
        one, other = (peak(name, shape, what) for what in ("pass", "certify"))
        print(
            f"| {name} | {median(seconds):.2f} | {median(ratios[1:]):.2f} | {max(ratios[1:]):.2f} "
            f"| {ratios[0]:.2f} | {one:.0f} | {other / one:.2f} |",
            flush=True,
        )


def problem(name: str, shape: tuple[int, ...], dtype: str) -> tuple[Net, dict[str, Any], dict[str, Any]]:
    """The net, what it is given, and gradients of its outputs."""
    net = refnet.build("resnet18_conv4", input=shape, transformation=name)
    given = {**refnet.fill.inputs(net, 0, dtype), **refnet.fill.params(net, 0, dtype)}
    return net, given, refnet.fill.output_gradients(net, 0, dtype)


def dumped(net: Net, given: Mapping[str, Any], output_gradients: Mapping[str, Any]) -> Candidate:
    """Every value and gradient of core in float32."""
    values, contexts = dict(given), {}
    for node in net.nodes:
        inputs = [values[name] for name in node.inputs]
        values[node.name], contexts[node.name] = core[node.op].forward(*inputs, **node.attrs)
    flow, arrived = net.gradient_flow(), dict(output_gradients)
    for node in reversed(net.nodes):
        context = contexts.pop(node.name)
        learnt = flow.intersection(learns_from(node))
        if node.name not in flow or not learnt:
            continue
        needs = tuple(name in learnt for name in node.inputs)
        found = core[node.op].backward(arrived[node.name], context, needs)
        for name, gradient, need in zip(node.inputs, found, needs, strict=True):
            if need:
                arrived[name] = arrived[name] + gradient if name in arrived else gradient
    nodes = {node.name for node in net.nodes}
    return Candidate(
        blobs={name: values[name] for name in values if name in nodes},
        gradients={name: gradient for name, gradient in arrived.items() if name in given},
        blob_gradients={name: gradient for name, gradient in arrived.items() if name in nodes},
        output_gradients=output_gradients,
    )


def taken(net: Net, given: Mapping[str, Any], dy: Mapping[str, Any]) -> None:
    """A pass forward and backward."""
    refnet.backward(refnet.forward(net, given), dy)


def certified(net: Net, given: Mapping[str, Any], candidate: Candidate) -> None:
    """A certification, whose report must be ok."""
    report = certify(net, given, candidate)
    if not report.ok:
        raise SystemExit(repr(report))


def measured(name: str, shape: tuple[int, ...], rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of the pass, and ratios of the certification to it; the first round warms up."""
    net, wide, dy = problem(name, shape, "float64")
    _, given, narrow = problem(name, shape, "float32")
    candidate = dumped(net, given, narrow)
    seconds, ratios = [], []
    taken(net, wide, dy)
    for _ in range(rounds + 1):
        begin = perf_counter()
        taken(net, wide, dy)
        middle = perf_counter()
        certified(net, given, candidate)
        end = perf_counter()
        seconds.append(middle - begin)
        ratios.append((end - middle) / (middle - begin))
    return seconds[1:], ratios


def peak(name: str, shape: tuple[int, ...], what: str) -> float:
    """The most memory, in MiB, of a process that does one of the two."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=work, args=(theirs, name, shape, what))
    process.start()
    theirs.close()
    most = float(ours.recv())
    process.join()
    return most


def work(pipe: Any, name: str, shape: tuple[int, ...], what: str) -> None:
    """Do it once, and tell the peak."""
    if what == "pass":
        taken(*problem(name, shape, "float64"))
    else:
        net, given, dy = problem(name, shape, "float32")
        certified(net, given, dumped(net, given, dy))
    pipe.send(largest() / 2**20)


if __name__ == "__main__":
    main()

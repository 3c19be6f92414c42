"""Who finds which planted defect: `check_net`, PyTorch's gradcheck, slow and fast, JAX's check_grads.

    python benchmarks/scoreboard.py [--json FILE] [--only PATTERN]
    python benchmarks/scoreboard.py --extrapolate

print the table of docs/gradcheck.md, and what slow gradcheck would take for a whole body. They need a clone
(the defects are those of tests/defects.py); a peer that is not installed is left out.

`check_net` is given the net. The peers are given more than their users have: the one call that is wrong, on
the inputs that it has in the net, in the net's dtype, as a `torch.autograd.Function` or a `jax.custom_vjp`
around the same kernel; where the walk is wrong, the few nodes that show it. They run with their defaults;
JAX with reverse mode alone, as a function of its own derivative has no other, and in 64 bits. Each of them is
asked about the right operator, too: what a check says of the wrong one counts only if it passes the right
one. Seconds are those of one core; a check that takes longer than 60 s is stopped.
"""

import argparse
import json
import multiprocessing
import os
import re
import resource
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

import refnet
from refnet.arithmetic import core
from refnet.gradcheck import check_net
from refnet.net import Net, learns_from
from refnet.shapes import size

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from defects import DEFECTS, STOP

LIMIT = 60  # seconds of one check
MEMORY = 12 << 30  # bytes of one check


# What the peers are asked about.


@dataclass(frozen=True)
class Problem:
    """A function of some arrays, and what is said to be its gradients.

    Attributes
    ----------
    names : tuple of str
        Of the arrays.
    arrays : tuple of ndarray
    forward : ``(*arrays) -> (y, context)``
    backward : ``(dy, context) -> gradients``
        None where there is none.
    """

    names: tuple[str, ...]
    arrays: tuple[np.ndarray, ...]
    forward: Callable[..., tuple[np.ndarray, Any]]
    backward: Callable[..., Sequence[np.ndarray | None]]


def given(net, dtype):
    return refnet.fill.inputs(net, 0, dtype) | refnet.fill.params(net, 0, dtype)


def call(defect, planted):
    """The defect's node, on its inputs in the net."""
    net = defect.net()
    blobs = given(net, defect.dtype)
    values = blobs | refnet.forward(net, blobs).blobs
    node = next(node for node in net.nodes if node.name == defect.node)
    return of_node(node, [values[name] for name in node.inputs], defect.arithmetic if planted else core)


def of_node(node, inputs, arithmetic):
    """A node as a function of what it can learn."""
    learnt = learns_from(node)
    needs = tuple(name in learnt for name in node.inputs)
    kernel = getattr(arithmetic, node.op)

    def forward(*arrays):
        moved = iter(arrays)
        full = [next(moved) if need else a for need, a in zip(needs, inputs, strict=True)]
        return kernel.forward(*full, **node.attrs)

    def backward(dy, context):
        gradients = kernel.backward(dy, context, needs)
        return [g for need, g in zip(needs, gradients, strict=True) if need]

    chosen = [(name, a) for need, name, a in zip(needs, node.inputs, inputs, strict=True) if need]
    names, arrays = zip(*chosen, strict=True)
    return Problem(names, arrays, forward, backward)


def of_net(net, arithmetic, walk):
    """A net of one output as a function of its inputs and parameters."""
    blobs = given(net, "float64")
    (output,) = net.outputs

    def forward(*arrays):
        run = refnet.forward(net, dict(zip(blobs, arrays, strict=True)), arithmetic)
        return run.blobs[output], run

    def backward(dy, run):
        with walk():
            gradients = refnet.backward(run, {output: dy})
        return [gradients.get(name) for name in blobs]

    return Problem(tuple(blobs), tuple(blobs.values()), forward, backward)


def convolution(net, name, x, stops=False):
    y = net.add("conv3d", name, (x, net.param(f"{name}_w", (4, 4, 1, 3, 3))), pad=(0, 1, 1))
    return net.add("stop_gradient", STOP, (y,)) if stops else y


def data(net):
    return net.input("data", (1, 4, 2, 5, 6))


def fan_out():
    """A convolution that two others read."""
    net = Net()
    x = convolution(net, "res3_0_relu", data(net))
    net.output(net.add("add", "sum", (convolution(net, "left", x), convolution(net, "right", x))))
    return net


def behind_a_stop():
    net = Net()
    net.output(convolution(net, "res3", convolution(net, "conv1", data(net), stops=True)))
    return net


def rectifier_behind_a_stop():
    net = Net()
    x, norm = data(net), "res2_0_branch2c_bn"
    x = net.add("affine", norm, (x, net.param(f"{norm}_s", (4,)), net.param(f"{norm}_b", (4,))))
    x = net.add("stop_gradient", STOP, (net.add("relu", "res2_0_relu", (x,)),))
    net.output(convolution(net, "res3", x))
    return net


def without_a_stop():
    net = Net()
    net.output(convolution(net, "res3", convolution(net, "res3_0_branch2a", data(net))))
    return net


# Where the walk is wrong: the few nodes that show it, named as in the net.
BLOCKS = {
    "fan-out added once": fan_out,
    "one branch of a fan-out twice": fan_out,
    "gradient leaks through the stop": behind_a_stop,
    "blocked one node too late": rectifier_behind_a_stop,
    "blocked one block too early": without_a_stop,
    "one parameter taken for blocked": without_a_stop,
}


def problem(defect, planted):
    if defect.name not in BLOCKS:
        return call(defect, planted)
    net = BLOCKS[defect.name]()
    return of_net(net, defect.arithmetic, defect.walk) if planted else of_net(net, core, nullcontext)


# The peers. Each raises what its users see, and returns None if it passes.


class RejectedError(Exception):
    """A check's own word that a gradient is wrong; its argument is the tensor, or "" if none is named."""


def torch_function(problem):
    """A problem as a function of tensors."""
    import torch

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *tensors):
            y, ctx.kept = problem.forward(*(tensor.detach().numpy() for tensor in tensors))
            return torch.from_numpy(np.asarray(y))

        @staticmethod
        def backward(ctx, dy):
            gradients = problem.backward(np.asarray(dy.numpy(), order="C"), ctx.kept)
            return tuple(None if g is None else torch.from_numpy(np.asarray(g)) for g in gradients)

    return Function.apply, tuple(torch.from_numpy(a.copy()).requires_grad_() for a in problem.arrays)


def torch_check(problem, **options):
    from torch.autograd.gradcheck import GradcheckError, gradcheck

    function, tensors = torch_function(problem)
    try:
        gradcheck(function, tensors, **options)
    except GradcheckError as error:
        named = re.search(r"with respect to input (\d+)", str(error))
        raise RejectedError(problem.names[int(named[1])] if named else "") from error


def jax_check(problem):
    import jax

    jax.config.update("jax_enable_x64", True)
    from jax.test_util import check_grads

    def described(arrays):
        return [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in arrays]

    def value(*arrays):
        return np.asarray(problem.forward(*map(np.asarray, arrays))[0])

    def gradients(dy, *arrays):
        arrays = [np.asarray(a) for a in arrays]
        _, context = problem.forward(*arrays)
        found = problem.backward(np.asarray(dy, order="C"), context)
        return [np.zeros_like(a) if g is None else np.asarray(g) for g, a in zip(found, arrays, strict=True)]

    output = described([problem.forward(*problem.arrays)[0]])[0]

    @jax.custom_vjp
    def function(*arrays):
        return jax.pure_callback(value, output, *arrays)

    def forward(*arrays):
        return function(*arrays), arrays

    def backward(arrays, dy):
        return tuple(jax.pure_callback(gradients, described(arrays), dy, *arrays))

    function.defvjp(forward, backward)
    try:
        check_grads(function, problem.arrays, order=1, modes=("rev",))
    except AssertionError as error:
        raise RejectedError("") from error


PEERS: dict[str, tuple[str, Callable[[Problem], None]]] = {
    "gradcheck": ("torch", torch_check),
    "gradcheck, fast": ("torch", lambda problem: torch_check(problem, fast_mode=True)),
    "check_grads": ("jax", jax_check),
}


# Measuring.


@dataclass(frozen=True)
class Answer:
    """What a check said: "passed", "rejected", or what stopped it; the tensor that it named; how long."""

    word: str
    tensor: str = ""
    seconds: float = 0.0


def timed(check):
    start = time.process_time()
    try:
        check()
        word, tensor = "passed", ""
    except RejectedError as error:
        word, tensor = "rejected", error.args[0]
    except (MemoryError, RuntimeError) as error:
        if not re.search("memory", f"{type(error).__name__} {error}", re.IGNORECASE):
            raise
        word, tensor = "out of memory", ""
    return Answer(word, tensor, time.process_time() - start)


def work(pipe, peer):
    """Answer for one peer, in a process of its own."""
    warnings.simplefilter("ignore")
    package, check = PEERS[peer]
    __import__(package)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    timed(lambda: check(problem(DEFECTS[1], False)))  # what is loaded at the first call
    pipe.send("ready")
    while True:
        index, planted = pipe.recv()
        asked = problem(DEFECTS[index], planted)
        pipe.send("begun")
        pipe.send(timed(lambda asked=asked: check(asked)))


class Worker:
    """A peer's process, which is replaced when it is stopped."""

    def __init__(self, peer):
        self._peer, self._process, self._of_right = peer, None, {}

    def answers(self, index):
        """What the peer says of the right operator, asked once for each call, and of the wrong one."""
        defect = DEFECTS[index]
        call = BLOCKS.get(defect.name, defect.net), defect.node, defect.dtype
        if call not in self._of_right:
            self._of_right[call] = self._ask(index, False)
        return [self._of_right[call], self._ask(index, True)]

    def _ask(self, index, planted):
        if self._process is None:
            self._start()
        self._pipe.send((index, planted))
        self._pipe.recv()
        if self._pipe.poll(LIMIT):
            return self._pipe.recv()
        self.stop()
        return Answer("stopped", seconds=LIMIT)

    def _start(self):
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=work, args=(theirs, self._peer), daemon=True)
        self._process.start()
        theirs.close()
        self._pipe.recv()

    def stop(self):
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None


def ours(defect):
    """`check_net` of the whole net, with the defect and without; the tensor is named with its node."""
    answers = []
    for planted in (False, True):
        net = defect.net()
        blobs = given(net, defect.dtype)
        start = time.process_time()
        with defect.walk() if planted else nullcontext():
            report = check_net(net, blobs, defect.arithmetic if planted else core)
        seconds = time.process_time() - start
        wrong = {name: v.node for name, v in report.verdicts.items() if v.verdict == "wrong"}
        named = set(defect.tensors) <= set(wrong) and defect.node in wrong.values()
        word = "passed" if report.ok else "rejected"
        answers.append(Answer(word, defect.tensors[0] if named else "", seconds))
    return answers


def finding(right, wrong, tensors):
    """One line of what a check made of the right operator and of the wrong one."""
    cases = {
        ("passed", "passed"): "missed",
        ("passed", "rejected"): "**found, named**" if wrong.tensor in tensors else "**found**",
        ("rejected", "passed"): "rejects the right one alone",
        ("rejected", "rejected"): "rejects the right one too",
    }
    text = cases.get((right.word, wrong.word), wrong.word)
    return text if wrong.word == "out of memory" else f"{text}, {seconds(wrong.seconds)}"


def seconds(value):
    return f"{value:.2g} s" if value < 10 else f"{value:.0f} s"


# What slow gradcheck would take for a body: for each node two forward calls an element of its inputs, and two
# backward calls an element of its output.


def best(f, budget=0.2):
    """The shortest time of a call."""
    times, end = [], time.process_time() + budget
    while not times or time.process_time() < end:
        start = time.process_time()
        f()
        times.append(time.process_time() - start)
    return min(times)


def calls(asked):
    """How often slow gradcheck calls forward and backward."""
    y = asked.forward(*asked.arrays)[0]
    return 2 * sum(a.size for a in asked.arrays), 2 * y.size


def predicted(asked):
    """Seconds of these calls."""
    y, context = asked.forward(*asked.arrays)
    forwards, backwards = calls(asked)
    one = best(lambda: asked.forward(*asked.arrays))
    return forwards * one + backwards * best(lambda: asked.backward(y, context))


def extrapolated():
    """Seconds for a body, node by node and as one function; the elements; how a measured part compares."""
    part = problem(next(d for d in DEFECTS if d.name == "kernel transposed in dx"), False)
    expected = predicted(part)
    torch_check(part)  # what is loaded at the first call
    measured = timed(lambda: torch_check(part)).seconds
    net = refnet.build("resnet18_conv4", input=(1, 3, 8, 224, 224))
    blobs = given(net, "float64")
    run = refnet.forward(net, blobs)
    values, flows = blobs | run.blobs, net.gradient_flow()
    nodes = [node for node in net.nodes if node.name in flows and flows.intersection(learns_from(node))]
    total, elements = 0.0, 0
    for node in nodes:
        asked = of_node(node, [values[name] for name in node.inputs], core)
        total += predicted(asked)
        elements += sum(a.size for a in asked.arrays)
    dy = refnet.fill.output_gradients(net)
    forward = best(lambda: refnet.forward(net, blobs))
    backward = best(lambda: refnet.backward(run, dy))
    learnt = sum(size(values[name].shape) for name in net.learnt() & flows)
    outputs = sum(a.size for a in dy.values())
    start = time.process_time()
    assert check_net(net, blobs).ok
    return {
        "elements, node by node": elements,
        "check_net, seconds": time.process_time() - start,
        "days, node by node": total / 86400,
        "elements, one function": learnt,
        "days, one function": (2 * learnt * forward + 2 * outputs * backward) / 86400,
        "bytes, one function": 8 * learnt * outputs,
        "measured part, seconds": measured,
        "measured part, as extrapolated": expected,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the answers, too")
    parser.add_argument("--only", default="", metavar="PATTERN", help="defects whose names match")
    parser.add_argument("--extrapolate", action="store_true", help="what slow gradcheck would take")
    chosen = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # of the peers' processes
    with threadpool_limits(1):
        if chosen.extrapolate:
            found = extrapolated()
            print("\n".join(f"{name}: {value:.4g}" for name, value in found.items()))
        else:
            found = keep_score(re.compile(chosen.only))
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(found, indent=1) + "\n")


def keep_score(chosen):
    """Ask everybody about the defects that match, print what they say, and return it."""
    workers = {name: Worker(name) for name, (package, _) in PEERS.items() if find_spec(package)}
    heads = ["defect", "check_net", *workers]
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    records = []
    for index, defect in enumerate(DEFECTS):
        if not chosen.search(defect.name):
            continue
        answers = {"check_net": ours(defect)}
        for name, worker in workers.items():
            answers[name] = worker.answers(index)
        cells = [finding(*pair, defect.tensors) for pair in answers.values()]
        print(f"| {defect.name} | " + " | ".join(cells) + " |", flush=True)
        records.append({"defect": defect.name, **{k: [vars(a) for a in v] for k, v in answers.items()}})
    for worker in workers.values():
        worker.stop()
    return records


if __name__ == "__main__":
    main()

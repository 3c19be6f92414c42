"""The problems that speed is measured on: what the operators' records name."""

from refnet.bench.problem import Problem
from refnet.ops import OPS

PROBLEMS = tuple(Problem(op.name, case) for op in OPS.values() for case in op.benchmarks)
CONVOLUTIONS = tuple(problem for problem in PROBLEMS if problem.compute_bound)
OTHERS = tuple(problem for problem in PROBLEMS if not problem.compute_bound)

# Work against time: a problem, and what of it is doubled.
(BASE,) = (problem for problem in CONVOLUTIONS if problem.name == "128->128 3x3x3 at 8x28x28")
DOUBLED = {"N": (2, 1, 1, 1, 1), "T": (1, 1, 2, 1, 1), "HxW": (1, 1, 1, 1, 2)}

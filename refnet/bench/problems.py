"""The problems that speed is measured on: what the operators' records name."""

from refnet.ops import OPS

CONV3D = OPS["conv3d"].benchmarks
OPERATORS = {op.name: op.benchmarks for op in OPS.values() if op.benchmarks and op.name != "conv3d"}

# Work against time: a problem, and what of it is doubled.
BASE = CONV3D[2]
DOUBLED = {"N": (2, 1, 1, 1, 1), "T": (1, 1, 2, 1, 1), "HxW": (1, 1, 1, 1, 2)}

"""Gradient checks: every element of every gradient within the bound that follows from its dtype.

`check_op` checks an operator of an arithmetic, `check_net` a whole network with the composition of its calls,
`check_torch` a PyTorch module that is one of the architectures, `check` any function. Each returns a
`Report`.
"""

from refnet.check import Report, Verdict
from refnet.check.differences import check
from refnet.check.network import check_net
from refnet.check.operators import check_op
from refnet.interop.torch import check_torch

__all__ = ["Report", "Verdict", "check", "check_net", "check_op", "check_torch"]

"""Gradient checks: every element of every gradient within the bound that follows from its dtype.

`check_op` checks an operator of an arithmetic, `check_net` a whole network with the composition of its calls,
`check` any function. Each returns a `Report`.
"""

from refnet.check import Report, Verdict
from refnet.check.differences import check
from refnet.check.network import check_net
from refnet.check.operators import check_op

__all__ = ["Report", "Verdict", "check", "check_net", "check_op"]

"""Rounding or bug: somebody else's arrays, judged by bounds that follow from what they claim.

`certify` judges a network's blobs and gradients, `check` one call of an operator, `examine` a kernel, live;
`read` reads a candidate from disk.
"""

from refnet.check import Report, Verdict
from refnet.check.certification import certify
from refnet.check.kernel_trial import examine
from refnet.check.one_call import check
from refnet.golden.candidate import read
from refnet.inputs.candidate import Candidate

__all__ = ["Candidate", "Report", "Verdict", "certify", "check", "examine", "read"]

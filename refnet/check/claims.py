"""What a candidate may claim: its words, checked, and how a report says them."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from refnet.arrays import dtype_name
from refnet.check.bounds import Claim, unit
from refnet.check.precision import FORMATS, WAYS
from refnet.check.report import Report
from refnet.errors import DTypeError, ValueRangeError, brief, require_fraction, require_known

LEAST_DELTA = 1e-100
ALGORITHMS = ("direct", "winograd", "fft", "one-pass variance")
STORES = ("float64", "float32", "bfloat16", "float16")


def claimed(
    accumulate: DTypeLike,
    store: DTypeLike,
    operands: DTypeLike,
    operand_rounding: str | None,
    flush_to_zero: bool,
    algorithm: str,
) -> Claim:
    """A claim, its words checked.

    Raises
    ------
    UnknownNameError
        Naming what is not known.
    """
    accumulate = dtype_name(accumulate, STORES, "format to accumulate in")
    store = dtype_name(store, STORES, "format to store in")
    operands = dtype_name(operands, FORMATS, "format of operands")
    require_known("algorithm", algorithm, ALGORITHMS)
    if operand_rounding is not None:
        require_known("rounding of operands", operand_rounding, WAYS)
    if not isinstance(flush_to_zero, bool | np.bool_):
        raise DTypeError(f"flush_to_zero is {brief(flush_to_zero)}: expected True or False")
    return Claim(accumulate, store, operands, operand_rounding, bool(flush_to_zero), algorithm)


def require_delta(delta: float) -> None:
    """Refuse what is no probability, or so small a one that no test has such a level.

    Raises
    ------
    ValueRangeError
    """
    require_fraction("delta", delta)
    if delta < LEAST_DELTA:
        raise ValueRangeError(f"delta is {brief(delta)}: expected at least {LEAST_DELTA:g}")


DIRECT = Claim("float32", "float32", "float32")


def reproducible(report: Report, call: str, claim: Claim, **others: Any) -> Report:
    """The report, with a line of Python that shows each failure again.

    Parameters
    ----------
    report : Report
    call : str
        "certify(net, given, candidate": what precedes the claim.
    claim : Claim
    **others
        Keywords beside the claim's, those that are not at their defaults.
    """
    pairs = zip(Claim._fields, claim, DIRECT, strict=True)
    said = {name: value for name, value, usual in pairs if value != usual} | others
    line = ", ".join([call, *(f"{name}={value!r}" for name, value in said.items())])
    verdicts = {
        name: v if v.passes else replace(v, reproduce=f"refnet.certify.{line}).verdicts[{name!r}]")
        for name, v in report.verdicts.items()
    }
    return replace(report, verdicts=verdicts)


def facts(claim: Claim, delta: float) -> dict[str, Any]:
    """What a report says of a claim."""
    return {
        "accumulate": claim.accumulate,
        "store": claim.store,
        "operands": claim.operands,
        "operand rounding": claim.operand_rounding or "any",
        "flush to zero": claim.flush_to_zero,
        "algorithm": claim.algorithm,
        "delta": delta,
        "oracle": f"{'core' if unit(claim.accumulate) > unit('float64') else 'exact'}, float64",
    }

"""The floating-point environment in which NumPy computes what refnet promises.

Another library may have set a thread to flush subnormal numbers or to round another way: what is built with
fast-math does so when it is imported. The kernels set their own environment (`_core/environment.pyx`); what
NumPy computes around them runs inside of `default`.
"""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from refnet._core import environment

P = ParamSpec("P")
R = TypeVar("R")

# A context: this thread rounds to nearest, keeps subnormal numbers and traps nothing, and then has again what
# it had before.
default = environment.Default

# In place of `numpy.errstate`: what a signal's handler raises leaves no error handling of ours behind.
errstate = environment.errstate


def in_default(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function run in the default environment, whatever its caller's is."""

    @wraps(function)
    def inside(*args: P.args, **kwargs: P.kwargs) -> R:
        with default():
            return function(*args, **kwargs)

    return inside

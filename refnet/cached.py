"""A property that is computed when it is first asked for, and kept."""

from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, overload

T = TypeVar("T")


class cached_property(Generic[T]):  # noqa: N801, it is used as `property` is
    """What `functools.cached_property` is, without a lock: two threads may both compute it, and keep one.

    Python 3.11 holds a lock meanwhile, one for all objects of the class. Nobody releases it in a child that
    is forked then, which would wait forever.
    """

    def __init__(self, compute: Callable[[Any], T]):
        self.compute = compute
        self.__doc__ = compute.__doc__
        self.__name__ = compute.__name__

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type) -> T: ...

    def __get__(self, instance: object | None, owner: type) -> Self | T:
        if instance is None:
            return self
        kept: T = instance.__dict__.setdefault(self.__name__, self.compute(instance))
        return kept

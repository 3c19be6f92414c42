"""Ports of a net to NumPy in float32, as somebody would write one: right, or wrong at one node.

They compute with the operators' definitions, not with refnet's kernels, and walk the net by themselves.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import refnet
from refnet.arithmetic import Kernel, reference
from refnet.inputs.candidate import Candidate
from refnet.net import learns_from


def given_of(net, seed, dtype="float32"):
    """What a net is given: inputs and parameters."""
    return refnet.fill.inputs(net, seed, dtype) | refnet.fill.params(net, seed, dtype)


def sum_of(contributions):
    """The gradient of a blob that several nodes read."""
    total = contributions[0]
    for more in contributions[1:]:
        total = total + more
    return total


@dataclass(frozen=True)
class Port:
    """An implementation of a net.

    Attributes
    ----------
    kernels : dict of str to Kernel
        Of nodes that are not computed as defined.
    total : ``(contributions) -> gradient``
        How gradients of a blob meet.
    opened : tuple of str
        Gradient stops that hand their gradient on.
    ends_before : str, optional
        A node at which it stops with an error: what it has computed until then is its dump.
    """

    kernels: Mapping[str, Kernel] = field(default_factory=dict)
    total: Callable[[list[Any]], Any] = sum_of
    opened: tuple[str, ...] = ()
    ends_before: str | None = None

    def candidate(self, net, given, output_gradients=None):
        """All that it computes; forward alone without gradients of outputs, or where it ends early."""
        values, contexts = dict(given), {}
        for node in net.nodes:
            if node.name == self.ends_before:
                break
            kernel = self.kernels.get(node.name, reference.kernels[node.op])
            inputs = [values[name] for name in node.inputs]
            with np.errstate(invalid="ignore", over="ignore"):
                values[node.name], contexts[node.name] = kernel.forward(*inputs, **node.attrs)
        blobs = {name: value for name, value in values.items() if name not in given}
        if output_gradients is None or self.ends_before is not None:
            return Candidate(blobs=blobs)
        arrived, blob_gradients = self._backward(net, contexts, output_gradients)
        gradients = {name: self.total(arrived[name]) for name in given if name in arrived}
        return Candidate(
            blobs=blobs,
            gradients=gradients,
            blob_gradients=blob_gradients,
            output_gradients=dict(output_gradients),
        )

    def _backward(self, net, contexts, output_gradients):
        """The contributions to the gradient of each value, and the gradients of nodes."""
        arrived = {name: [dy] for name, dy in output_gradients.items()}
        found, learnt = {}, self._learnt(net)
        for node in reversed(net.nodes):
            if node.name not in arrived or node.name not in learnt:
                continue
            dy = found[node.name] = self.total(arrived[node.name])
            if node.name in self.opened:
                gradients = (dy,)
            else:
                kernel = self.kernels.get(node.name, reference.kernels[node.op])
                needs = tuple(name in learnt and name in learns_from(node) for name in node.inputs)
                with np.errstate(invalid="ignore", over="ignore"):
                    gradients = kernel.backward(dy, contexts[node.name], needs)
            for name, gradient in zip(node.inputs, gradients, strict=True):
                if gradient is not None and name in learnt:
                    arrived.setdefault(name, []).append(gradient)
        return arrived, {name: found[name] for name in reversed(found)}

    def _learnt(self, net):
        """What depends on something learnt, without a stop between that is not open."""
        names = net.learnt()
        for node in net.nodes:
            read = node.inputs if node.name in self.opened else learns_from(node)
            if not names.isdisjoint(read):
                names.add(node.name)
        return names


# Kernels that are wrong in one respect. Each takes an operator's name.


def called(change, back=lambda gradients: gradients):
    """The operator, called with other arrays or attributes: `change(arrays, attrs)`; then gradients, too."""

    def make(op):
        right = reference.kernels[op]

        def forward(*arrays, **attrs):
            arrays, attrs = change(list(arrays), dict(attrs))
            y, context = right.forward(*map(np.ascontiguousarray, arrays), **attrs)
            return np.asarray(y, order="C"), context

        def backward(dy, context, needs):
            return back(list(right.backward(dy, context, needs)))

        return Kernel(forward, backward)

    return make


def with_attrs(**others):
    """The operator, called with other attributes."""
    return called(lambda arrays, attrs: (arrays, attrs | others))


def with_w(change):
    """A product whose weights are changed by a permutation that is its own inverse."""

    def back(gradients):
        if gradients[1] is not None:
            gradients[1] = np.ascontiguousarray(change(gradients[1]))
        return gradients

    return called(lambda arrays, attrs: ([arrays[0], change(arrays[1]), *arrays[2:]], attrs), back)


def yielded(change):
    """The right result changed: `change(y, arrays, attrs)`; backward is right."""

    def make(op):
        right = reference.kernels[op]

        def forward(*arrays, **attrs):
            y, context = right.forward(*arrays, **attrs)
            return np.asarray(change(y, arrays, attrs), y.dtype, order="C"), context

        return Kernel(forward, right.backward)

    return make


def handed(index, change):
    """The right gradient of an input changed: `change(gradient, dy, arrays, attrs)`."""

    def make(op):
        right = reference.kernels[op]

        def forward(*arrays, **attrs):
            y, context = right.forward(*arrays, **attrs)
            return y, (context, arrays, attrs)

        def backward(dy, context, needs):
            inner, arrays, attrs = context
            gradients = list(right.backward(dy, inner, needs))
            if gradients[index] is not None:
                changed = change(gradients[index], dy, arrays, attrs)
                gradients[index] = np.ascontiguousarray(changed, gradients[index].dtype)
            return tuple(gradients)

        return Kernel(forward, backward)

    return make


def computed(y=None, gradients=None):
    """A product computed in another way: `y(arrays, attrs)`, `gradients(dy, arrays, attrs, needs)`."""

    def make(op):
        right = reference.kernels[op]

        def forward(*arrays, **attrs):
            found, context = right.forward(*arrays, **attrs)
            if y is not None:
                found = np.ascontiguousarray(y(arrays, attrs), found.dtype)
            return found, (context, arrays, attrs)

        def backward(dy, context, needs):
            inner, arrays, attrs = context
            if gradients is None:
                return right.backward(dy, inner, needs)
            return gradients(dy, arrays, attrs, needs)

        return Kernel(forward, backward)

    return make

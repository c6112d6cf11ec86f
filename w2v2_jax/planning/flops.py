"""The arithmetic of a model: floating-point operations of its matrix products and convolutions, from their shapes."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend import core
from jaxtyping import PyTree


def count_flops(function: Callable[..., PyTree], *arguments: PyTree) -> int:
    """Operations of all products of `function(*arguments)`, two for each multiplication and addition.

    Arguments may be shapes: nothing is computed. A scan counts as often as it turns, a Pallas kernel as often as its
    grid has places, a `while` once. Of the branches of a `cond` the dearest counts, of ways for several platforms the
    cheapest: the others multiply by zeros to suit a machine. What is no product (norms, activations, softmax) doesn't
    count: this is the number that model FLOPs utilisation is made of.
    """
    return _of_jaxpr(jax.make_jaxpr(function)(*arguments).jaxpr)


def _of_jaxpr(jaxpr: core.Jaxpr) -> int:
    return sum(_RULES.get(equation.primitive.name, _of_inner)(equation) for equation in jaxpr.eqns)


def _of_dot(equation: core.JaxprEqn) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return 2 * equation.outvars[0].aval.size * math.prod(left[axis] for axis in contracted)


def _of_conv(equation: core.JaxprEqn) -> int:
    kernel = equation.invars[1].aval
    out_channels = kernel.shape[equation.params["dimension_numbers"].rhs_spec[0]]
    return 2 * equation.outvars[0].aval.size * kernel.size // out_channels


def _of_scan(equation: core.JaxprEqn) -> int:
    return equation.params["length"] * _of_inner(equation)


def _of_cond(equation: core.JaxprEqn) -> int:
    choose = min if equation.params.get("branches_platforms") else max
    return choose(map(_of_jaxpr, _jaxprs(equation.params)))


def _of_kernel(equation: core.JaxprEqn) -> int:
    return math.prod(equation.params["grid_mapping"].grid) * _of_inner(equation)


def _of_inner(equation: core.JaxprEqn) -> int:
    return sum(map(_of_jaxpr, _jaxprs(equation.params)))


def _jaxprs(parameters: dict[str, Any]) -> Iterator[core.Jaxpr]:
    for value in parameters.values():
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, core.ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, core.Jaxpr):
                yield item


_RULES: dict[str, Callable[[core.JaxprEqn], int]] = {
    "dot_general": _of_dot,
    "conv_general_dilated": _of_conv,
    "scan": _of_scan,
    "cond": _of_cond,
    "pallas_call": _of_kernel,
}

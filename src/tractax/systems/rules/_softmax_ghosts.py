"""The radius at which the Taylor series of cross-entropy ends, for a step of descent on a logistic classifier."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...core import Kind
from ...deep_linear import DeepLinear
from ...rules import (
    CrossEntropyTask,
    binary_ghost,
    binary_taylor_radius,
    cross_entropy_coefficients,
    logits_along,
    taylor_radius_bound,
)
from .._system import AbstractSystem, Citation, Tolerance

_ORDER = 120


class SoftmaxGhostsSystem(AbstractSystem):
    """Two classes of five examples, a linear classifier, and the gradient step that it is about to take."""

    name: ClassVar[str] = "softmax_ghosts"
    family: ClassVar[str] = "rules"
    kind: ClassVar[Kind] = "exact"
    summary: ClassVar[str] = "radius of convergence of cross-entropy along a step, from complex zeros of the softmax"
    citation: ClassVar[Citation] = Citation("Sao", 2026, "2603.13552")
    claim: ClassVar[Tolerance] = Tolerance(1e-8)

    def step(self) -> tuple[CrossEntropyTask, Float[Array, "examples classes"], Float[Array, "examples classes"]]:
        """The task, the logits, and their slopes along the negative gradient."""
        inputs = jnp.asarray([[1.0, 0.3], [0.4, 1.2], [-0.5, 0.8], [-1.1, -0.2], [0.2, -0.9]])
        task = CrossEntropyTask(inputs, jnp.asarray([0, 0, 1, 1, 1]))
        model = DeepLinear((jnp.asarray([[0.4, -0.3], [-0.1, 0.9]]),))
        direction = jax.tree.map(jnp.negative, jax.grad(task.loss)(model))
        return task, *logits_along(task.logits, model, direction)

    def measure(self) -> Float[Array, ""]:
        """Radii, read off the coefficients alone: far out they obey the recurrence of a pair of zeros."""
        task, logits, slopes = self.step()
        radii = binary_taylor_radius(logits, slopes)
        coefficients = self.coefficients(task, logits, slopes, radii)
        b = coefficients * jnp.arange(_ORDER + 1.0)[None, :]
        # b_{n+1} = p b_n + q b_{n-1} with q = -1/ρ², in powers of t/ρ.
        matrix = jnp.stack([jnp.stack([b[:, -3], b[:, -4]], 1), jnp.stack([b[:, -2], b[:, -3]], 1)], 1)
        found = jnp.linalg.solve(matrix, jnp.stack([b[:, -2], b[:, -1]], 1)[:, :, None])[:, 1, 0]
        return jnp.max(jnp.abs(1 / jnp.sqrt(-found) - 1))

    def coefficients(
        self, task: CrossEntropyTask, logits: Array, slopes: Array, scales: Array
    ) -> Float[Array, "examples coefficients"]:
        """Those of every example, in powers of t over a scale of its own."""
        return jax.vmap(lambda z, a, y, s: cross_entropy_coefficients(z, a, y, _ORDER, s))(
            logits, slopes, task.labels, scales
        )

    def draw(self, figure: Any) -> None:
        """The coefficients against their order, and errors of Taylor polynomials within and beyond the radius."""
        import matplotlib

        task, logits, slopes = self.step()
        radii = binary_taylor_radius(logits, slopes)
        coefficients = self.coefficients(task, logits, slopes, radii)
        roots, errors = figure.subplots(1, 2)
        which = int(jnp.argmin(radii))
        rho, theta = radii[which], jnp.angle(binary_ghost(logits, slopes)[which])
        n = jnp.arange(1, _ORDER + 1.0)
        predicted = 2 / n * jnp.abs(jnp.cos(n * theta))
        roots.semilogy(n, predicted, color="tab:blue", label="theory, $2|\\cos n\\theta|/n$")
        roots.semilogy(n, jnp.abs(coefficients[which, 1:]), "o", color="k", mfc="white", ms=4, label="coefficients")
        roots.set(xlabel="order $n$", ylabel="$|c_n|\\,\\rho^n$", ylim=(1e-4, 5), xlim=(0, 60))
        bound = taylor_radius_bound(slopes)[which] / rho
        roots.set_title(f"$\\rho = {float(rho):.3f}$, bound $\\rho_a = {float(bound * rho):.3f}$", fontsize=10)
        roots.legend(fontsize=8, loc="lower left")
        z, a, y = logits[which], slopes[which], task.labels[which]
        orders = jnp.arange(1, 61)
        fractions = (0.5, 0.8, 0.95, 1.05, 1.3)
        colours = matplotlib.colormaps["viridis"](jnp.linspace(0, 0.85, len(fractions)))
        for fraction, colour in zip(fractions, colours, strict=True):
            terms = coefficients[which] * fraction ** jnp.arange(_ORDER + 1.0)
            line = z + a * fraction * rho
            error = jnp.abs(jnp.cumsum(terms)[orders] - (jax.nn.logsumexp(line) - line[y]))
            errors.semilogy(orders, error, color=colour, label=f"$t = {fraction}\\,\\rho$")
        errors.set(xlabel="order of the polynomial", ylabel="error of the loss", ylim=(1e-16, 1e7))
        errors.legend(fontsize=8)

"""Layers with momentum: how stiff experts may be before signals explode in depth."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ...core import Kind
from ...rules import MomentumLayers, momentum_layer_threshold
from .._system import AbstractSystem, Citation, Tolerance

_DEPTH = 600


class MomentumLayersSystem(AbstractSystem):
    """Linear experts of one stiffness, six hundred layers deep."""

    name: ClassVar[str] = "momentum_layers"
    family: ClassVar[str] = "rules"
    kind: ClassVar[Kind] = "bound"
    summary: ClassVar[str] = "momentum between layers keeps signals bounded for stiffer experts, up to a factor of two"
    citation: ClassVar[Citation] = Citation("Teo, Nguyen", 2024, "2410.14574")
    claim: ClassVar[Tolerance] = Tolerance(1e-3, "relative error of the threshold")

    def growth(self, stiffness: ArrayLike, momentum: ArrayLike) -> Float[Array, ""]:
        """The logarithm of the growth of a signal per layer, over the second half of the network."""
        layers = MomentumLayers(_Linear(jnp.asarray(stiffness)), 1.0, momentum, _DEPTH)
        sizes = jnp.abs(layers.signals(jnp.ones(())))
        # Signals oscillate: the largest of a stretch.
        middle = jnp.max(sizes[_DEPTH // 2 - 50 : _DEPTH // 2])
        return 2 * (jnp.log(jnp.max(sizes[-50:])) - jnp.log(middle)) / _DEPTH

    def threshold(self, momentum: ArrayLike) -> Float[Array, ""]:
        """The stiffness at which signals begin to grow, by bisection of the network itself."""

        def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
            middle = (ends[0] + ends[1]) / 2
            grows = self.growth(middle, momentum) > 0
            return jnp.where(grows, ends[0], middle), jnp.where(grows, middle, ends[1])

        low, high = jax.lax.fori_loop(0, 20, halve, (jnp.asarray(1.0), jnp.asarray(6.0)))
        return (low + high) / 2

    def measure(self) -> Float[Array, ""]:
        """Thresholds found at several momenta, against 2(1 + μ)."""
        momenta = jnp.asarray([0.0, 0.3, 0.5, 0.9])
        found = jax.jit(jax.vmap(self.threshold))(momenta)
        return jnp.max(jnp.abs(found / momentum_layer_threshold(momenta) - 1))

    def draw(self, figure: Any) -> None:
        """Where signals grow and where they decay, and signals below and above the threshold."""
        where, along = figure.subplots(1, 2)
        momenta = jnp.linspace(-0.6, 0.95, 12)
        found = jax.jit(jax.vmap(self.threshold))(momenta)
        fine = jnp.linspace(-0.95, 0.999, 50)
        where.fill_between(fine, 0, momentum_layer_threshold(fine), color="tab:blue", alpha=0.12, lw=0)
        where.plot(fine, momentum_layer_threshold(fine), color="tab:blue", label="theory, $2(1 + \\mu)$")
        where.plot(momenta, found, "o", color="k", mfc="white", ms=5, label="simulation")
        where.text(0.45, 1.0, "bounded", ha="center")
        where.text(-0.3, 3.2, "growing", ha="center")
        where.set(xlabel="momentum $\\mu$", ylabel="stiffness $\\gamma s$", ylim=(0, 4.2), xticks=(-1, -0.5, 0, 0.5, 1))
        where.legend(fontsize=8, loc="upper left")
        for momentum, colour in ((0.0, "tab:red"), (0.5, "tab:blue")):
            layers = MomentumLayers(_Linear(jnp.asarray(2.3)), 1.0, momentum, 24)
            sizes = jnp.abs(layers.signals(jnp.ones(())))
            along.semilogy(
                jnp.arange(25), sizes, "o-", color=colour, mfc="white", ms=4, lw=0.8, label=f"$\\mu = {momentum:g}$"
            )
        along.set(xlabel="layer", ylabel="size of the signal", title="stiffness $\\gamma s = 2.3$")
        along.legend(fontsize=8)


class _Linear(eqx.Module):
    stiffness: Float[Array, ""]

    def __call__(self, x: Array) -> Array:
        return self.stiffness * x

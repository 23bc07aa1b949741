"""SGD of an attention layer moves in few directions, and the order of its batches matters along them."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from ...analysis import (
    Alignment,
    Scaling,
    TrajectoryPCA,
    gradient_bracket,
    scaling,
    step_commutator,
    subspace_alignment,
    trajectory_pca,
)
from ...core import Kind
from ...rules import GradientDescent
from ...training import train
from ...transformers import InContextRegression, SeparateAttention, gaussian_separate_attention
from .._system import AbstractSystem, Citation, Exponent

_BATCH = 32
_DIMENSIONS = (1, 3, 5, 10)


class TrajectoryGeometrySystem(AbstractSystem):
    """Four heads with separate keys and queries learn regression in context from mini-batches of prompts."""

    name: ClassVar[str] = "trajectory_geometry"
    family: ClassVar[str] = "transformers"
    kind: ClassVar[Kind] = "asymptotic"
    summary: ClassVar[str] = "dimension of a training trajectory, and commutators of SGD steps along it"
    citation: ClassVar[Citation] = Citation("Xu", 2026, "2602.10496")
    claim: ClassVar[Exponent] = Exponent(1.0, "exponent in η of the commutator beyond its leading order, relative")

    def measure(self) -> Scaling:
        """Over sixteen pairs of batches, at random weights."""
        task, model = _task(), gaussian_separate_attention(4, 4, scale=0.3, key=jax.random.key(0))
        keys = jax.random.split(jax.random.key(2), 16)
        errors = jax.jit(lambda rate: jnp.sqrt(jnp.mean(_remainders(model, task, rate, keys) ** 2)))
        return scaling(lambda rate: errors(jnp.asarray(rate)), (0.1, 0.03, 0.01, 0.003), correction=1.0)

    def draw(self, figure: Any) -> None:
        """What lies beyond the leading order; the variance outside of few components; alignment along the run."""
        order, variance, alignment = figure.subplots(1, 3)
        measured = self.measure()
        order.plot(measured.sizes, measured.errors[0] * measured.sizes / measured.sizes[0], color="C0", label="$\\eta^1$")
        order.plot(measured.sizes, measured.errors, "o", color="C0", mfc="white", ms=4, label="measured")
        order.set(xscale="log", yscale="log", xlabel="learning rate $\\eta$", ylabel="relative remainder")
        order.set_title("Order of two batches")
        order.legend(fontsize=8)

        task, model = _task(), gaussian_separate_attention(4, 4, scale=0.1, key=jax.random.key(0))
        ts = jnp.linspace(0.0, 400.0, 81)
        rule = GradientDescent(0.3, batch_size=_BATCH)
        recorded = train(model, task, rule, ts, observe=lambda model: model, key=jax.random.key(1)).observed
        principal = trajectory_pca(_reaching(recorded))
        outside = 1 - jnp.concatenate([jnp.zeros(1), jnp.cumsum(principal.explained)[:11]])
        variance.semilogy(jnp.arange(12), outside, "o-", color="C0", mfc="white", ms=4)
        for share in (0.9, 0.95, 0.99):
            variance.axhline(1 - share, color="0.7", ls=":", lw=1)
            variance.annotate(f"{share:.0%}", (11, 1 - share), xytext=(0, 2), textcoords="offset points", fontsize=7)
        variance.set(xlabel="components", ylabel="variance outside", title="Principal components", xticks=range(0, 12, 2))

        stops = list(range(0, 81, 8))
        ratios = [_ratios(jax.tree.map(lambda x, i=i: x[i], recorded), task, principal) for i in stops]
        colours = ("0.6", "C0", "C2", "C3")
        for number, colour, curve in zip(_DIMENSIONS, colours, zip(*ratios, strict=True), strict=True):
            alignment.plot(ts[jnp.asarray(stops)], curve, "o-", color=colour, mfc="white", ms=4, label=f"{number}")
        alignment.axhline(1.0, color="0.3", ls=":", lw=1)
        alignment.set(xlabel="time $t = \\eta\\,$steps", ylabel="share of the commutator / chance", ylim=(0, None))
        alignment.set_title("Alignment along the run")
        alignment.legend(fontsize=8, title="components", title_fontsize=8)


def _task() -> InContextRegression:
    return InContextRegression(jnp.diag(jnp.asarray([0.4, 0.3, 0.2, 0.1])), length=16)


def _batches(task: InContextRegression, key: PRNGKeyArray) -> tuple[PyTree, PyTree]:
    first, second = jax.random.split(key)
    return task.sample(first, _BATCH), task.sample(second, _BATCH)


def _remainders(
    model: SeparateAttention, task: InContextRegression, rate: ArrayLike, keys: PRNGKeyArray
) -> Float[Array, " pairs"]:
    """How far the commutator of two steps is from its leading order, relative to it."""

    def remainder(key: PRNGKeyArray) -> Array:
        pair = _batches(task, key)
        leading = ravel_pytree(gradient_bracket(model, task.batch_loss, *pair))[0]
        commutator = ravel_pytree(step_commutator(model, task.batch_loss, *pair, rate))[0]
        return jnp.linalg.norm(commutator / rate**2 - leading) / jnp.linalg.norm(leading)

    return jax.vmap(remainder)(keys)


def _reaching(model: SeparateAttention) -> tuple[Array, Array, Array]:
    """The weights that reach the prediction: the others never move, and would make chance look worse than it is."""
    return model.value[..., -1, :], model.key, model.query[..., :-1]


@eqx.filter_jit
def _ratios(
    model: SeparateAttention, task: InContextRegression, principal: TrajectoryPCA
) -> tuple[Float[Array, ""], ...]:
    """The mean alignment of 64 commutators with the leading components, over that of random vectors."""

    def alignments(key: PRNGKeyArray) -> list[Alignment]:
        bracket = _reaching(gradient_bracket(model, task.batch_loss, *_batches(task, key)))
        return [subspace_alignment(bracket, principal.leading(number)) for number in _DIMENSIONS]

    each = jax.vmap(alignments)(jax.random.split(jax.random.key(5), 64))
    return tuple(jnp.mean(alignment.ratio) for alignment in each)

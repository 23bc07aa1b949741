"""Liu et al.: the lower the rank of the initial weights, the further the tangent kernel turns in training."""

from typing import Any, ClassVar

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from ...analysis import Scaling, cosine_similarity, scaling
from ...core import Kind
from ...deep_linear import DeepLinear, LinearTask, expected_alignment, final_alignment, haar, input_kernel
from ...rules import GradientFlow
from ...training import ensemble, train
from .._system import AbstractSystem, Citation, Exponent


class InitRankAlignmentSystem(AbstractSystem):
    """The alignment of initial and final kernel, predicted from the initial weights and measured by training."""

    name: ClassVar[str] = "init_rank_alignment"
    family: ClassVar[str] = "deep_linear"
    kind: ClassVar[Kind] = "asymptotic"
    summary: ClassVar[str] = "how far the tangent kernel turns in training, from the rank of the initial weights"
    citation: ClassVar[Citation] = Citation("Liu, Baratin, Cornford, Mihalas, Shea-Brown, Lajoie", 2023, "2310.08513")
    claim: ClassVar[Exponent] = Exponent(2.0, "exponent of the error in the initial scale")

    def measure(self) -> Scaling:
        """Networks of rank 1, 2 and 6 with six inputs, trained to the end from weights of shrinking scale."""
        task = LinearTask(direction(6, jax.random.key(0))[None, :])
        starts = [random_start(6, 6, rank, jax.random.key(int(rank)), second=0.5) for rank in (1.0, 2.0, 6.0)]

        def error(scale: float) -> Float[Array, ""]:
            found = []
            for start in starts:
                model = DeepLinear(tuple(scale * w for w in start.weights))
                found.append(trained_alignment(model, task, scale) - final_alignment(model, task))
            return jnp.linalg.norm(jnp.stack(found))

        # The layers differ by O(σ²) at the end, which meets weights of O(σ) that were never used: the next order is σ³.
        return scaling(error, (0.08, 0.04, 0.02, 0.01, 0.005), correction=1.0)

    def draw(self, figure: Any) -> None:
        """The kernel's alignment with its start during training, and at the end against the rank of the start."""
        d, repeats = 20, 6
        ranks = jnp.asarray([1.0, 2.0, 5.0, 10.0, 20.0])
        ts = jnp.linspace(0.0, 12.0, 41)
        members = (jnp.repeat(ranks, repeats), jax.random.split(jax.random.key(1), repeats * ranks.size))

        def course(member):
            rank, key = member
            start_key, target_key = jax.random.split(key)
            model = random_start(d, d, rank, start_key, scale=1e-2)
            task = LinearTask(direction(d, target_key)[None, :])
            kernel = input_kernel(model)
            return alignments(model, task, ts), final_alignment(model, task), expected_alignment(kernel)

        courses, predicted, expected = ensemble(course, members)
        left, right = figure.subplots(1, 2)
        for i, colour in zip(range(0, members[0].size, repeats), ("C3", "C1", "C2", "C0", "0.2"), strict=True):
            left.axhline(float(predicted[i]), color=colour, lw=1.5)
            left.plot(ts, courses[i], "o", color=colour, mfc="white", ms=4, label=f"rank {members[0][i]:.0f}")
        left.plot([], [], color="0.3", label="predicted end")
        left.set(xlabel="time $t/\\tau$", ylabel="alignment with initial kernel", ylim=(0, 1.05), title="Training")
        left.legend(fontsize=8, loc=(0.45, 0.7), ncols=2)
        right.plot(ranks, expected[::repeats], color="0.2", label="theory, mean over targets")
        right.plot(members[0], courses[:, -1], "o", color="0.2", mfc="white", ms=4, label="trained networks")
        right.set(
            xlabel="rank of the initial weights", ylabel="final alignment", ylim=(0, 1.05), title="Low rank is rich"
        )
        right.set_xticks([1, 2, 5, 10, 20])
        right.legend(fontsize=8, loc="lower right")


def direction(d: int, key: PRNGKeyArray) -> Float[Array, " d"]:
    """A random unit vector."""
    return haar(key, d, 1, float)[:, 0]


def random_start(
    d: int, hidden: int, rank: ArrayLike, key: PRNGKeyArray, *, scale: float = 1.0, second: float = 0.0
) -> DeepLinear:
    """First-layer weights with `rank` equal singular values and norm `scale`; the second layer has norm `second`."""
    left, right, out = jax.random.split(key, 3)
    modes = min(d, hidden)
    values = jnp.where(jnp.arange(modes, dtype=float) < rank, 1 / jnp.sqrt(rank), 0.0)
    first = (haar(left, hidden, modes, float) * values[None, :]) @ haar(right, d, modes, float).T
    return DeepLinear((scale * first, scale * second * direction(hidden, out)[None, :]))


def alignments(model: DeepLinear, task: LinearTask, ts: Float[Array, " times"]) -> Float[Array, " times"]:
    """The cosine of the kernel with its initial value over time, by training the network."""
    tight = diffrax.PIDController(rtol=1e-10, atol=1e-14)
    kernels = train(model, task, GradientFlow(), ts, observe=input_kernel, stepsize_controller=tight).observed
    return jax.vmap(cosine_similarity, in_axes=(0, None))(kernels, input_kernel(model))


def trained_alignment(model: DeepLinear, task: LinearTask, scale: float) -> Float[Array, ""]:
    """The same at the end: after leaving the saddle, at ln(1/σ), and 16 time constants more."""
    escape = 2 * jnp.log(1 / scale)
    return alignments(model, task, jnp.stack([escape, escape + 16]))[-1]

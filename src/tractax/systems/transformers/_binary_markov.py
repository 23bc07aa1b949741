"""Weight tying on a Markov chain: a conserved quantity tells which starts learn it."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from ...core import Kind
from ...rules import GradientFlow
from ...training import train
from ...transformers import BinaryMarkovTask, TiedBigram, learns_bigram
from .._system import AbstractSystem, Citation, Tolerance


class BinaryMarkovSystem(AbstractSystem):
    """A chain that tends to alternate, and starts on both sides of the threshold."""

    name: ClassVar[str] = "binary_markov"
    family: ClassVar[str] = "transformers"
    kind: ClassVar[Kind] = "bound"
    summary: ClassVar[str] = "tied weights on a Markov chain: a threshold between unigram and bigram solutions"
    citation: ClassVar[Citation] = Citation("Makkuva et al.", 2024, "2402.04161")
    claim: ClassVar[Tolerance] = Tolerance(1e-6, "distance of final losses from the predicted ones")

    def measure(self) -> Float[Array, ""]:
        """The largest distance, over starts at least a tenth off the threshold."""
        task = alternating()
        embeddings, weights = jnp.meshgrid(jnp.asarray([0.5, 1.0, 1.2, 1.8]), jnp.asarray([-1.6, -0.4, 0.2]))

        def error(embedding: Float[Array, ""], weight: Float[Array, ""]) -> Float[Array, ""]:
            learns = learns_bigram(TiedBigram(embedding, weight, 0.3), task)
            predicted = jnp.where(learns, task.bigram_loss, task.unigram_loss)
            return jnp.abs(_losses(embedding, weight, jnp.asarray([1000.0]))[0] - predicted)

        return jnp.max(jax.jit(jax.vmap(error))(embeddings.ravel(), weights.ravel()))

    def draw(self, figure: Any) -> None:
        """Losses over time from four starts; the final loss over the plane of starts."""
        left, right = figure.subplots(1, 2)
        task, ts = alternating(), jnp.logspace(-1.0, 3.0, 81)
        for i, embedding in enumerate((1.0, 1.4, 1.5, 2.0)):
            left.plot(ts, _losses(embedding, 0.0, ts), color=f"C{i}", label=f"$e = {embedding:g}$")
        for level, name in ((task.unigram_loss, "unigram"), (task.bigram_loss, "bigram")):
            left.axhline(float(level), color="0.5", ls=":", lw=1)
            left.annotate(name, (0.1, float(level)), xytext=(0, 3), textcoords="offset points", fontsize=8, color="0.3")
        left.set(xlabel="time $t/\\tau$", ylabel="loss", xscale="log", title="Simulations from $w = 0$")
        left.legend(fontsize=8, loc="upper right")
        embeddings, weights = jnp.linspace(0.02, 2.5, 32), jnp.linspace(-2.4, 0.9, 32)
        late = jnp.asarray([300.0])
        final = jax.jit(jax.vmap(jax.vmap(lambda e, w: _losses(e, w, late)[0], (None, 0)), (0, None)))
        losses = np.asarray(final(embeddings, weights))
        image = right.pcolormesh(weights, embeddings, losses, cmap="viridis", shading="nearest", rasterized=True)
        threshold = np.linspace(-1.0, 0.75, 50)
        right.plot(threshold, np.sqrt(2) * (1 + threshold), color="white", label="$e^2 = 2(1 + w)^2$")
        right.set(xlabel="weight $w$ at the start", ylabel="embedding $e$ at the start", title="Final loss")
        right.set(ylim=(0, 2.5))
        figure.colorbar(image, ax=right, label="loss")
        right.legend(fontsize=8, loc="lower left", labelcolor="white")


def alternating() -> BinaryMarkovTask:
    """More flips than not."""
    return BinaryMarkovTask(0.8, 0.7)


def _losses(embedding: ArrayLike, weight: ArrayLike, ts: Float[Array, " times"]) -> Float[Array, " times"]:
    return train(TiedBigram(embedding, weight, 0.3), alternating(), GradientFlow(), ts).observed

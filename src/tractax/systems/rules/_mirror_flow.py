"""Mirror flow with the hyperbolic entropy is what a diagonal linear network does to its predictor."""

from typing import Any, ClassVar

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ...core import Kind
from ...deep_linear import DeepLinear, DiagonalLinear, DiagonalNetwork, RegressionTask
from ...plotting import overlay
from ...rules import GradientFlow, HyperbolicEntropy, MirrorDescent, MirrorFlow
from ...training import train
from .._system import AbstractSystem, Citation, Tolerance

# Of one layer against the two of the network, whose weights both move.
_SPEED = 4.0


class MirrorFlowSystem(AbstractSystem):
    """A single layer of five inputs on three examples, against a network of depth 2 on the same."""

    name: ClassVar[str] = "mirror_flow"
    family: ClassVar[str] = "rules"
    kind: ClassVar[Kind] = "exact"
    summary: ClassVar[str] = "mirror flow of one layer equals gradient flow of a diagonal network, from sparse to dense"
    citation: ClassVar[Citation] = Citation("Woodworth et al.", 2020, "2002.09277")
    claim: ClassVar[Tolerance] = Tolerance(1e-8)

    def task(self) -> RegressionTask:
        """Fewer examples than inputs, and a sparse teacher."""
        inputs = jax.random.normal(jax.random.key(7), (3, 5))
        return RegressionTask(inputs, inputs @ jnp.asarray([1.5, 0.0, 0.0, -1.0, 0.0]))

    def predicted(self, scale: ArrayLike) -> DiagonalNetwork:
        """The network whose initial weights are `scale`."""
        return DiagonalNetwork.from_model(DiagonalLinear.uniform(5, scale=scale), self.task(), GradientFlow())

    def simulated(self, scale: ArrayLike, ts: Float[Array, " times"]) -> Float[Array, "times in"]:
        """The layer in the time of the network."""
        rule = MirrorFlow(HyperbolicEntropy(2 * jnp.asarray(scale) ** 2), 1 / _SPEED)
        tight = diffrax.PIDController(rtol=1e-10, atol=1e-14)
        options = {"solver": diffrax.Dopri8(), "stepsize_controller": tight}
        return train(_layer(), self.task(), rule, ts, observe=_weights, **options).observed

    def measure(self) -> Float[Array, ""]:
        """The largest relative distance of the predictors, from small and from large weights."""
        ts = jnp.linspace(0.0, 8.0, 9)[1:]
        errors = []
        for scale in (0.1, 1.0):
            expected = jax.vmap(self.predicted(scale).evaluate)(ts).predictor
            errors.append(jnp.max(jnp.abs(self.simulated(scale, ts) - expected)) / jnp.max(jnp.abs(expected)))
        return jnp.max(jnp.stack(errors))

    def draw(self, figure: Any) -> None:
        """Every entry of the predictor at two scales: networks as lines, steps of mirror descent as markers."""
        labels = [f"$\\beta_{i}$" for i in range(1, 6)]
        for axes, scale, last in zip(figure.subplots(1, 2), (0.03, 1.0), (30.0, 2.0), strict=True):
            ts = jnp.linspace(0.0, last, 121)
            lines = jax.vmap(self.predicted(scale).evaluate)(ts).predictor
            rule = MirrorDescent(0.002, HyperbolicEntropy(2 * scale**2))
            markers = train(_layer(), self.task(), rule, _SPEED * ts, observe=_weights).observed
            overlay(axes, ts, lines, markers, labels)
            axes.set(xlabel="time of the network $t/\\tau$", title=f"initial weights $\\alpha = {scale}$")
        figure.axes[0].set(ylabel="predictor")
        figure.axes[0].get_legend().remove()
        figure.axes[1].legend(fontsize=8, loc="center right", bbox_to_anchor=(1.0, 0.42))


def _layer() -> DeepLinear:
    return DeepLinear((jnp.zeros((1, 5)),))


def _weights(model: DeepLinear) -> Array:
    return model.weights[0][0]

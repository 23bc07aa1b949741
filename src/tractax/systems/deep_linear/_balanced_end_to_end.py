"""Arora, Cohen and Hazan's end-to-end dynamics: depth acts on the map as a preconditioner, and can speed learning up."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...core import Kind
from ...deep_linear import BalancedEndToEnd, LinearTask, MapTask, balanced, balanced_factors
from ...plotting import overlay
from ...rules import GradientFlow
from .._system import AbstractRunSystem, Citation, Run, Tolerance


class BalancedEndToEndSystem(AbstractRunSystem):
    """Three layers on correlated inputs; one to four layers on the fourth power of the error."""

    name: ClassVar[str] = "balanced_end_to_end"
    family: ClassVar[str] = "deep_linear"
    kind: ClassVar[Kind] = "exact"
    summary: ClassVar[str] = "the map of a balanced network of any depth, on any loss, obeys an equation of its own"
    citation: ClassVar[Citation] = Citation("Arora, Cohen, Hazan", 2018, "1802.06509")
    claim: ClassVar[Tolerance] = Tolerance(1e-8)

    def run(self) -> Run:
        """A network with sizes 4, 5, 3, 3 and random balanced layers."""
        optimum = jnp.array([[2.2, 0.5, -0.3, 0.4], [-0.6, 1.6, 0.2, 0.1], [0.3, 0.2, 1.4, -0.5]])
        covariance = jnp.array([[1.0, 0.4, 0.0, 0.2], [0.4, 1.3, -0.3, 0.0], [0.0, -0.3, 0.8, 0.1], [0.2, 0.0, 0.1, 0.6]])
        task = LinearTask(optimum @ covariance, covariance)
        model = balanced((4, 5, 3, 3), scale=0.7, key=jax.random.key(1))
        solution = BalancedEndToEnd.from_model(model, task, t1=12.0)
        return Run(model, task, GradientFlow(), solution, jnp.linspace(0.0, 12.0, 121))

    def race(self, depth: int) -> Run:
        """A network with one output and narrow layers that start from the same map at every depth."""
        target = jnp.array([[2.0, 0.5]])
        task = MapTask(lambda w: jnp.sum((w - target) ** 4) / 4)
        model = balanced_factors(jnp.full((1, 2), 0.1), (1,) * (depth - 1))
        solution = BalancedEndToEnd.from_model(model, task, t1=10.0)
        return Run(model, task, GradientFlow(), solution, jnp.linspace(0.0, 10.0, 81))

    def draw(self, figure: Any) -> None:
        """Singular values of the map in the first case, the loss for each depth in the second."""
        left, right = figure.subplots(1, 2)
        run = self.run()
        theory = _singular_values(jax.vmap(run.solution.evaluate)(run.ts).product)
        simulated = _singular_values(run.simulate().observed.product)
        overlay(left, run.ts, theory, simulated, [f"mode {i + 1}" for i in range(theory.shape[1])])
        left.set(xlabel="time $t/\\tau$", ylabel="singular values of $W$", title="Three layers, correlated inputs")
        races = [self.race(depth) for depth in (1, 2, 3, 4)]
        losses = [jax.vmap(race.solution.loss)(race.ts) for race in races]
        simulated_losses = [jax.vmap(race.task.loss_of_map)(race.simulate().observed.product) for race in races]
        labels = [f"depth {race.solution.depth}" for race in races]
        overlay(right, races[0].ts, jnp.stack(losses, 1), jnp.stack(simulated_losses, 1), labels)
        right.set(xlabel="time $t/\\tau$", ylabel="loss", yscale="log", title="Fourth power of the error")


def _singular_values(products: Float[Array, "times out in"]) -> Float[Array, "times modes"]:
    return jnp.linalg.svd(products, compute_uv=False)

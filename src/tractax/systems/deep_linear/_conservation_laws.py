"""Du, Hu and Lee's balancedness: what gradient flow conserves, and how finite steps break it."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...analysis import Scaling, scaling
from ...core import Kind
from ...deep_linear import (
    Balance,
    ConservationLaws,
    DeepLinear,
    LinearTask,
    MapTask,
    balance_drift,
    balance_matrices,
    gaussian,
)
from ...plotting import overlay
from ...rules import GradientDescent, GradientFlow
from ...training import train
from .._system import AbstractRunSystem, AbstractSystem, Citation, Exponent, Run, Tolerance

_CITATION = Citation("Du, Hu, Lee", 2018, "1806.00900")


class ConservationLawsSystem(AbstractRunSystem):
    """Four random layers on a loss that is not quadratic, with weight decay."""

    name: ClassVar[str] = "conservation_laws"
    family: ClassVar[str] = "deep_linear"
    kind: ClassVar[Kind] = "exact"
    summary: ClassVar[str] = "gradient flow conserves the imbalance of linear layers, and weight decay shrinks it"
    citation: ClassVar[Citation] = _CITATION
    claim: ClassVar[Tolerance] = Tolerance(1e-8)

    def run(self, weight_decay: float = 0.1) -> Run:
        """A network with sizes 4, 5, 3, 5, 2."""
        target = 2 * jax.random.normal(jax.random.key(1), (2, 4))
        task = MapTask(lambda w: jnp.sum(jnp.cosh(w - target) - 1))
        model = gaussian((4, 5, 3, 5, 2), scale=0.35, key=jax.random.key(0))
        rule = GradientFlow(weight_decay=weight_decay)
        return Run(model, task, rule, ConservationLaws.from_model(model, task, rule), jnp.linspace(0.0, 10.0, 51))

    def draw(self, figure: Any) -> None:
        """The size of every matrix without and with weight decay; grey, the size of the layers."""
        for axes, decay in zip(figure.subplots(1, 2), (0.0, 0.1), strict=True):
            run = self.run(decay)
            theory = _norms(jax.vmap(run.solution.evaluate)(run.ts))
            overlay(axes, run.ts, theory, _norms(run.simulate().observed), ["$D_1$", "$D_2$", "$D_3$"])
            sizes = train(run.model, run.task, run.rule, run.ts, observe=_sizes).observed
            axes.plot(run.ts, sizes, color="0.75", lw=1, zorder=0)
            title = f"Weight decay $\\gamma = {decay:g}$ (grey: the layers)"
            axes.set(xlabel="time $t/\\tau$", ylabel="Frobenius norm", ylim=(0, 3.4), title=title)


class ConservationDriftSystem(AbstractSystem):
    """Two small layers, trained for the same time with ever smaller steps."""

    name: ClassVar[str] = "conservation_drift"
    family: ClassVar[str] = "deep_linear"
    kind: ClassVar[Kind] = "asymptotic"
    summary: ClassVar[str] = "gradient descent breaks the conservation laws in proportion to its learning rate"
    citation: ClassVar[Citation] = _CITATION
    claim: ClassVar[Exponent] = Exponent(1.0, "order of the drift in the learning rate")
    time: ClassVar[float] = 4.0
    rates: ClassVar[tuple[float, ...]] = (0.05, 0.025, 0.0125, 0.00625, 0.003125)

    def case(self) -> tuple[DeepLinear, LinearTask]:
        """A network with two inputs, two hidden units and one output."""
        model = DeepLinear((jnp.array([[0.5, -0.2], [0.1, 0.3]]), jnp.array([[0.4, 0.2]])))
        return model, LinearTask(jnp.array([[1.0, -1.0]]))

    def drift(self, learning_rate: float) -> Float[Array, "hidden hidden"]:
        """By how much gradient descent changes the balance matrix."""
        model, task = self.case()
        rule = GradientDescent(learning_rate)
        trained = train(model, task, rule, jnp.array([self.time]), observe=balance_matrices)
        return trained.observed[0][-1] - balance_matrices(model)[0]

    def measure(self) -> Scaling:
        """The order of the drift; its next order is known to be one higher."""
        return scaling(lambda rate: jnp.linalg.norm(self.drift(rate)), self.rates, correction=1.0)

    def draw(self, figure: Any) -> None:
        """The drift, and what is left of it after its first order is taken away."""
        model, task = self.case()
        rates = jnp.array(self.rates)
        first = balance_drift(model, task, self.time).matrices[0]
        drifts = jnp.stack([self.drift(rate) for rate in self.rates])
        left = drifts - rates[:, None, None] * first[None]
        axes = figure.subplots()
        axes.loglog(rates, rates * jnp.linalg.norm(first), color="C0", label="first order, from the flow")
        axes.loglog(rates, jnp.linalg.norm(drifts, axis=(1, 2)), "o", color="C0", mfc="white", label="drift of $D$")
        remainder = jnp.linalg.norm(left, axis=(1, 2))
        axes.loglog(rates, remainder[-1] * (rates / rates[-1]) ** 2, color="C1", label="slope 2")
        axes.loglog(rates, remainder, "s", color="C1", mfc="white", label="drift less first order")
        axes.set(xlabel="learning rate $\\eta$", ylabel=f"change of $D$ by $t = {self.time:g}$")
        axes.set_title("What finite steps add to a conserved quantity")
        axes.legend()


def _norms(balance: Balance) -> Float[Array, "times matrices"]:
    return jnp.stack([jnp.linalg.norm(d, axis=(1, 2)) for d in balance.matrices], axis=1)


def _sizes(model: DeepLinear) -> Float[Array, " layers"]:
    return jnp.stack([jnp.linalg.norm(w) for w in model.weights])

r"""Rectifier networks on mirrored data: they learn as linear networks do, in rescaled time.

Set-up. $f(x) = W_2\phi(W_1x)$ with the leaky rectifier $\phi$ of slope $\alpha$, no bias, any number of outputs; loss
$L = \tfrac12\mathbb E\lVert f(x) - y\rVert^2$ on data that hold $(-x, -y)$ with every $(x, y)$; gradient flow
$\tau\dot W = -\partial L$. The units are opposite: $(-w, -a)$ for every $(w, a)$ (weights from the inputs and to the
outputs), where parallel units may share a role. Then $f$ is odd, in fact linear.

Theory. It stays so, and with $\kappa = (1 + \alpha)/2$, $G = \Sigma_{yx} - \kappa W_2W_1\Sigma_{xx}$,

$$\tau\dot W_1 = \kappa W_2^\top G,\qquad \tau\dot W_2 = \kappa GW_1^\top,\qquad f(x) = \kappa W_2W_1x:$$

the flow of a linear network with the weights $\sqrt\kappa W$, at the time $\kappa t$. Every exact solution of
`tractax.deep_linear` applies.

That $f$ is odd at the start is not enough: units $(w, a)$ and $(-2w, -a/2)$ cancel at first, but drift apart.

Source: Zhang, Saxe and Latham 2024, arXiv 2406.12615.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..core import AbstractRule, AbstractSolution, Assumption, Kind, enforce
from ..deep_linear import AbstractLinearSolution, DeepLinear, LambdaBalancedRiccati, LinearTask
from ..rules import check_flow, no_weight_decay
from ._base import check_data, check_network
from ._network import TwoLayerNetwork
from ._symmetric_data import mirrored_data, off_the_kinks, opposite_units, second_moments


class SymmetricReLU(AbstractSolution):
    """Training of a (leaky) rectifier network on mirrored data, from the solution of a linear network.

    Build it with `from_model`. Time is in the rule's units ($\\tau$ is its `time_constant`). The state is that of the
    linear solution.

    **Attributes:**

    - `linear`: the solution of the linear network with weights $\\sqrt\\kappa W$.
    - `gain`: $\\kappa = (1 + \\alpha)/2$, how much slower time runs.
    """

    linear: AbstractLinearSolution
    gain: Float[Array, ""]
    kind: ClassVar[Kind] = "exact"

    @classmethod
    def from_model(
        cls,
        model: PyTree,
        task: PyTree,
        rule: AbstractRule | None = None,
        *,
        linear: type[AbstractLinearSolution] = LambdaBalancedRiccati,
        t1: ArrayLike | None = None,
        check: bool = True,
    ) -> "SymmetricReLU":
        """The solution for a network, having checked that network and data are symmetric.

        **Arguments:**

        - `model`: a `TwoLayerNetwork` of (leaky) rectifiers without bias.
        - `task`: a `RegressionTask` with mirrored data, such as `mirrored_task` makes.
        - `rule`: defaults to `tx.GradientFlow()`.
        - `linear`: which theory of `tractax.deep_linear` solves the linear network, such as `TwoLayerModes`.
        - `t1`: the horizon, for linear theories that need one.
        - `check`: refuse what the theory does not cover, here and in the linear theory.

        **Raises:**

        `ValueError` for another kind of network or rule, data that are not mirrored, units without opposites, an input on
        the kink of a unit, weight decay, or if an assumption of the linear theory is violated.
        """
        network, moments, rule, gain = cls._linear_case(model, task, rule)
        # Those of the linear theory are listed with the others.
        options = {} if t1 is None else {"t1": gain * jnp.asarray(t1, gain.dtype)}
        if check:
            network = enforce(network, cls.__name__, cls.assumptions(model, task, rule, linear=linear))
        solution = linear.from_model(network, moments, rule, check=False, **options)  # pyright: ignore
        return cls(solution, gain)

    @classmethod
    def assumptions(
        cls,
        model: PyTree,
        task: PyTree,
        rule: AbstractRule | None = None,
        *,
        linear: type[AbstractLinearSolution] = LambdaBalancedRiccati,
    ) -> tuple[Assumption, ...]:
        """How far the case is from what the solution, and that of the linear network, take for granted."""
        network, moments, rule, _ = cls._linear_case(model, task, rule)
        return (
            mirrored_data(task),
            opposite_units(model),
            off_the_kinks(model, task),
            no_weight_decay(check_flow(rule, cls.__name__, rates=True)),
            *linear.assumptions(network, moments, rule),
        )

    @classmethod
    def _linear_case(cls, model: Any, task: Any, rule: Any) -> tuple[DeepLinear, LinearTask, AbstractRule, Array]:
        model = check_network(model, cls.__name__)
        task, rule = check_data(model, task), check_flow(rule, cls.__name__, rates=True)
        cross, covariance, power = second_moments(task)
        gain = linear_gain(model)
        return _scaled(model, gain), LinearTask(cross, covariance, target_power=power), rule, gain

    @property
    def t1(self) -> Any:
        """The horizon: infinite, unless the linear theory has one."""
        return self.linear.t1 / self.gain

    def state(self, t: Float[Array, ""]) -> Any:
        """The state of the linear solution at the time that corresponds to `t`."""
        return self.linear.state(self.gain * t.astype(self.gain.dtype))

    def vector_field(self, t: Float[Array, ""], state: Any) -> Any:
        """The flow of the linear network, slowed down."""
        velocity = self.linear.vector_field(self.gain * t, state)
        return jax.tree.map(lambda x: self.gain * x, velocity)

    def limit(self) -> Any:
        """That of the linear solution."""
        return self.linear.limit()

    def reduce(self, model: TwoLayerNetwork) -> Any:
        """The state of the linear network that corresponds to a network."""
        return self.linear.reduce(_scaled(model, self.gain))

    def product(self, t: ArrayLike) -> Float[Array, "out in"]:
        """The map from inputs to outputs at one time: $f(x)$ is this matrix times $x$."""
        return self.linear.product_of(self.evaluate(t))

    def loss(self, t: ArrayLike) -> Float[Array, ""]:
        """The task's loss at one time."""
        return self.linear.task.loss_of_map(self.product(t))


def linear_gain(model: TwoLayerNetwork) -> Float[Array, ""]:
    r"""$\kappa = (1 + \alpha)/2$."""
    slope = model.activation.slope  # pyright: ignore
    if slope <= -1:
        raise ValueError(f"`model` must have units with a slope above -1, whose odd part grows; got {slope}.")
    return jnp.asarray((1 + slope) / 2, model.first.dtype)


def _scaled(model: TwoLayerNetwork, gain: Array) -> DeepLinear:
    return DeepLinear((jnp.sqrt(gain) * model.first, jnp.sqrt(gain) * model.second))

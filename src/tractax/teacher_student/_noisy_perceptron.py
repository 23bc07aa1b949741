r"""A perceptron under SGD: the noise of the batches acts like a temperature, and sets the size of the weights.

Set-up. A linear classifier $w\cdot x$ in $d$ dimensions learns the sign of $x_1$ (`PerceptronTask`: exponent $\chi$ of
the density near the boundary, hinge loss with margin $\kappa$) by SGD, one fresh batch of $B$ examples after another,
learning rate $\eta$. Time is $t = \eta$ times the number of steps, and the noise of the batches is the temperature
$T = \eta d/B$, which stays fixed as $d\to\infty$. (Papers that write $f = w\cdot x/\sqrt d$ have a learning rate that is
$d$ times larger.)

Theory. With $\lambda = w_1$, $r = \lvert w_\perp\rvert$ and $A = (\kappa - \lambda\lvert x_1\rvert)/r$, an example counts
with probability $\Phi(A)$, and

$$\dot\lambda = \mathbb E\,\lvert x_1\rvert\,\Phi(A),\qquad
\frac{d(r^2)}{dt} = -2r\,\mathbb E\,\varphi(A) + T\,\mathbb E\,\Phi(A).$$

A simulation of size $d$ scatters around this by $d^{-1/2}$, its mean is off by $1/d$. `late_perceptron` has
the end of it.

Source: Sclocchi, Geiger and Wyart 2023, arXiv 2301.13703, for the model; the equations are derived here.
"""

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..core import AbstractReducedFlow, AbstractRule, Assumption, FlowPath, Kind, integrate_flow, require
from ..rules import GradientDescent, plain_descent
from ..special import safe_sqrt
from ._linear_classifier import LinearClassifier
from ._perceptron_task import PerceptronTask, check_perceptron, density, probability_below, split_weights


class PerceptronState(eqx.Module):
    """What a linear classifier knows, and what it only seems to know.

    **Attributes:**

    - `signal`: $\\lambda = w_1$, the weight of the coordinate that decides.
    - `variance`: $r^2$, the squared length of all other weights.
    """

    signal: Float[Array, "*times"]
    variance: Float[Array, "*times"]

    @property
    def noise(self) -> Float[Array, "*times"]:
        """$r$."""
        return jnp.sqrt(self.variance)


class NoisyPerceptron(AbstractReducedFlow[PerceptronState]):
    """Signal and noise of a perceptron under SGD on fresh examples, in the limit of many inputs.

    Build it with `from_model`. Time is the learning rate times the number of steps.

    **Attributes:**

    - `path`: the integrated state.
    - `temperature`: $T = \\eta d/B$.
    - `task`: the case.
    """

    path: FlowPath
    temperature: Float[Array, ""]
    task: PerceptronTask
    kind: ClassVar[Kind] = "asymptotic"

    @classmethod
    def from_model(
        cls, model: PyTree, task: PyTree, rule: PyTree, *, t1: ArrayLike, check: bool = True, max_steps: int = 4096
    ) -> "NoisyPerceptron":
        """Integrates signal and noise of a classifier up to `t1`.

        **Arguments:**

        - `model`, `task`, `rule`: a `LinearClassifier`, a `PerceptronTask`, and plain `tx.GradientDescent` with a
          `batch_size`.
        - `t1`: the horizon, in units of the learning rate times steps.
        - `check`: has no effect; any start is covered.
        - `max_steps`: of the integration.

        **Raises:**

        `ValueError` for another kind of model, task or rule, or sizes that do not fit; if the integration fails.
        """
        del check
        model, task, temperature = _check_case(model, task, rule)
        field = eqx.Partial(_velocity, task.nodes(temperature.dtype), task.margin_loss.threshold, temperature)
        path = integrate_flow(field, _state_of(model, task), t1, max_steps=max_steps)
        return cls(path, temperature, task)

    @classmethod
    def assumptions(cls, model: PyTree, task: PyTree, rule: AbstractRule | None = None) -> tuple[Assumption, ...]:
        """None beyond the size going to infinity."""
        _check_case(model, task, rule)
        return ()

    def vector_field(self, t: Float[Array, ""], state: PerceptronState) -> PerceptronState:
        """The flow of signal and noise."""
        task, temperature = self.task, self.temperature
        return _velocity(task.nodes(temperature.dtype), task.margin_loss.threshold, temperature, t, state)

    def reduce(self, model: LinearClassifier) -> PerceptronState:
        """Signal and noise of a classifier."""
        return _state_of(model, self.task)


def _check_case(model: Any, task: Any, rule: Any) -> tuple[LinearClassifier, PerceptronTask, Array]:
    model, task = check_perceptron(model, task)
    if not isinstance(rule, GradientDescent):
        raise ValueError(f"`rule` must be tx.GradientDescent for NoisyPerceptron; got {type(rule).__name__}.")
    descent = plain_descent(rule, "NoisyPerceptron", batches=True)
    if descent is None:
        raise ValueError("`rule` must be plain SGD with a batch_size for NoisyPerceptron.")
    rate = require(
        descent.learning_rate,
        descent.time_per_step == descent.learning_rate,
        "`rule` must have the learning rate as its time_per_step for NoisyPerceptron.",
    )
    return model, task, (rate * (task.size / rule.batch_size)).astype(model.weights.dtype)


def _state_of(model: LinearClassifier, task: PerceptronTask) -> PerceptronState:
    signal, noise = split_weights(model, task)
    return PerceptronState(signal, noise**2)


def _velocity(
    nodes: tuple[Array, Array], threshold: Array, temperature: Array, t: Any, state: PerceptronState
) -> PerceptronState:
    del t
    distances, weights = nodes
    # An integrator may try a step below zero.
    noise = safe_sqrt(state.variance)
    gaps = threshold.astype(state.signal.dtype) - state.signal * distances
    counts = probability_below(gaps, noise)
    variance = temperature * (weights @ counts) - 2 * noise * (weights @ density(gaps, noise))
    return PerceptronState((weights * distances) @ counts, variance)

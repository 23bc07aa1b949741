r"""Langevin dynamics on a quadratic loss: the Ornstein-Uhlenbeck process, in closed form.

Set-up: any model and task whose loss is quadratic in the parameters, with Hessian $H$ (that of the penalty included),
and noise of covariance $N$ per unit of time, the same everywhere. The displacement $\delta$ from the minimum obeys
$d\delta = -H\delta\,dt + N^{1/2}dW$, so that its mean and covariance are

$$m(t) = e^{-Ht}m(0),\qquad \dot C = N - HC - CH,\qquad
C_{ij}(t) = N_{ij}\int_0^te^{-(\lambda_i + \lambda_j)s}ds$$

along eigenvectors of $H$ from a sure start. In the long run $C_{ij} = N_{ij}/(\lambda_i + \lambda_j)$: for Langevin
dynamics, $N = 2T$, $C = TH^{-1}$. Steps of length $h$ (Euler's method; gradient descent with noise added to every
gradient) replace the exponentials by powers of $q_{ij} = (1 - h\lambda_i)(1 - h\lambda_j)$, and end at
$HC + CH - hHCH = N$.

Loss: the task's own. Time: the rule's; steps take the time $h$.

Source: Uhlenbeck and Ornstein 1930; for SGD, Mandt, Hoffman and Blei 2017 (arXiv 1704.04289).
"""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ...core import AbstractRule, AbstractTask, Assumption, Kind, check_positive, enforce, require
from ...special import decay_integral, exprel, geometric
from ..descent._quadratic_loss import quadratic_losses
from ._langevin_flow import LangevinFlow
from ._parameter_moments import (
    AbstractParameterMoments,
    ParameterMoments,
    QuadraticLoss,
    has_minimum,
)


class OrnsteinUhlenbeck(AbstractParameterMoments):
    r"""Moments of the parameters under gradient flow with white noise, or under steps of gradient descent with noise.

    Build it with `from_model` for Langevin dynamics, or take the one that SGD resembles at small learning rates from
    `QuadraticSGD.small_rate_limit`. Of steps it knows whole ones only, as a simulation does. Along flat directions
    displacements are counted from the start. Gradients with respect to the data need distinct curvatures.

    **Attributes:**

    - `quadratic`: the loss around its minimum.
    - `curvatures`, `directions`: $\lambda_i$, ascending, and the eigenvectors as columns.
    - `noise`: $N$ along the eigenvectors, shape `(parameters, parameters)`.
    - `step`: $h$; `None` for the flow.
    """

    quadratic: QuadraticLoss
    noise: Float[Array, "parameters parameters"]
    curvatures: Float[Array, " parameters"]
    directions: Float[Array, "parameters parameters"]
    step: Float[Array, ""] | None
    kind: ClassVar[Kind] = "exact"

    @classmethod
    def from_model(
        cls,
        model: PyTree,
        task: AbstractTask,
        rule: AbstractRule | None = None,
        *,
        step: ArrayLike | None = None,
        check: bool = True,
    ) -> "OrnsteinUhlenbeck":
        """The solution for this model, whose parameters must be few enough to form their Hessian.

        **Arguments:**

        - `model`, `task`: any whose loss is quadratic in the trainable numbers.
        - `rule`: a `LangevinFlow`.
        - `step`: `None` for the flow itself, or the step of Euler's method, `dt0` of `tx.train`.
        - `check`: whether to refuse a loss that is not quadratic or has no minimum; if not, its quadratic approximation
          is solved.

        **Raises:**

        `ValueError` for another rule, a step that is not positive, or what `check` refuses.
        """
        temperature = _check_rule(rule).temperature
        quadratic = QuadraticLoss.at(model, task, _check_rule(rule).drift.weight_decay)
        size, dtype = quadratic.minimum.size, quadratic.minimum.dtype
        noise = 2 * temperature.astype(dtype) * jnp.eye(size, dtype=dtype)
        solution = cls.around(quadratic, noise, step)
        return enforce(solution, cls.__name__, cls.assumptions(model, task, rule)) if check else solution

    @classmethod
    def around(
        cls, quadratic: QuadraticLoss, noise: Float[Array, "parameters parameters"], step: ArrayLike | None = None
    ) -> "OrnsteinUhlenbeck":
        """The process with this noise."""
        curvatures, directions = jnp.linalg.eigh(quadratic.penalised)
        size, eps = curvatures.size, jnp.finfo(curvatures.dtype).eps
        curvatures = jnp.where(jnp.abs(curvatures) <= 10 * size * eps * jnp.max(jnp.abs(curvatures)), 0.0, curvatures)
        along = directions.T @ noise @ directions
        # What would be rounding builds up along flat directions, for ever.
        noisy = (curvatures != 0) | (jnp.diagonal(along) > 10 * size * eps * jnp.trace(along))
        along = jnp.where(noisy[:, None] & noisy[None, :], along, 0.0)
        step = None if step is None else check_positive("step", step, scalar=True).astype(curvatures.dtype)
        return cls(quadratic, along, curvatures, directions, step)

    @staticmethod
    def assumptions(model: PyTree, task: AbstractTask, rule: AbstractRule | None = None) -> list[Assumption]:
        """What the theory takes for granted: the Hessian is the same elsewhere, and there is a minimum."""
        quadratic = QuadraticLoss.at(model, task, _check_rule(rule).drift.weight_decay)
        return [quadratic_losses("quadratic loss", model, task.loss), has_minimum(quadratic)]

    def state(self, t: Float[Array, ""]) -> ParameterMoments:
        """The moments at time `t`."""
        t = t.astype(self.noise.dtype)
        single, pairs = self.curvatures, self.curvatures[:, None] + self.curvatures[None, :]
        if self.step is None:
            kept, times = jnp.exp(-_product(single, t)), _built_up(pairs, t)
        else:
            steps = jnp.rint(t / self.step)
            kept, _ = geometric(self.step * single, steps)
            _, times = geometric(self.step * (pairs - self.step * single[:, None] * single[None, :]), steps)
            times = self.step * times
        start = self.directions.T @ self.quadratic.displacement
        mean = self.directions @ jnp.where(start == 0, 0.0, kept * start)
        covariance = self.directions @ jnp.where(self.noise == 0, 0.0, self.noise * times) @ self.directions.T
        return self.quadratic.moments(mean, mean[:, None] * mean[None, :] + covariance)

    def limit(self) -> ParameterMoments:
        """The stationary moments.

        **Raises:**

        `ValueError` where there are none: noise along flat directions, negative curvature, or steps that are too long.
        """
        settles = self.curvatures > 0 if self.step is None else jnp.abs(1 - self.step * self.curvatures) < 1
        still = (self.curvatures == 0) & (jnp.diagonal(self.noise) == 0)
        message = "OrnsteinUhlenbeck has no limit: a direction is unstable, or flat and noisy."
        return self.state(require(jnp.full_like(self.noise[0, 0], jnp.inf), jnp.all(settles | still), message))

    def vector_field(self, t: Float[Array, ""], state: ParameterMoments) -> ParameterMoments:
        """The velocity of the moments and of the mean loss, under the flow."""
        del t
        if self.step is not None:
            raise ValueError("Steps obey no differential equation; build OrnsteinUhlenbeck without a `step`.")
        matrix = self.quadratic.penalised
        drift = matrix @ state.second
        noise = self.directions @ self.noise @ self.directions.T
        return self.quadratic.velocity(-matrix @ state.mean, noise - drift - drift.T)


def _product(rates: Array, t: Array) -> Array:
    """Zero rates stay zero for ever."""
    return jnp.where(rates == 0, 0.0, rates * t)


def _built_up(rates: Array, t: Array) -> Array:
    """∫₀ᵗ e^{-rs} ds, of negative rates too."""
    return jnp.where(
        rates < 0, t * exprel(-_product(jnp.minimum(rates, 0.0), t)), decay_integral(jnp.maximum(rates, 0.0), t)
    )


def _check_rule(rule: AbstractRule | None) -> LangevinFlow:
    if isinstance(rule, LangevinFlow):
        return rule
    raise ValueError(f"`rule` must be tx.rules.LangevinFlow for OrnsteinUhlenbeck; got {rule!r}.")

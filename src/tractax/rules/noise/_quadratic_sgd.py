r"""Stochastic gradient descent on a finite sum of quadratic losses: the mean over all batches, exact.

Set-up: any model and any task of $n$ examples whose losses $\ell_i$ are quadratic in the parameters (least squares on a
data set, with any model that is linear in its parameters). With the displacement $\delta$ from the minimum of the mean
$L$, gradients are $g_i = H_i\delta + e_i$, where the $e_i$ have mean zero. After steps of learning rate $\eta$ on the
mean gradient of $B$ examples, drawn with replacement, $m = \mathbb E\,\delta$ and $S = \mathbb E\,\delta\delta^\top$ obey

$$m\leftarrow m - \eta Hm,\qquad S\leftarrow S - \eta(HS + SH) + \eta^2\bigl[\tfrac1BG + (1 - \tfrac1B)HSH\bigr],$$

$$G = \tfrac1n\sum_i\bigl(H_iSH_i + H_ime_i^\top + e_im^\top H_i + e_ie_i^\top\bigr) = \mathbb E\,g_ig_i^\top.$$

Their diffusion `SGDFlow` has the moments $\dot m = -Hm$, $\dot S = -HS - SH + \tfrac\eta B(G - HSH)$: steps also
overshoot, by $\eta^2HSH$, and flows do not. Both maps are affine, and are applied $k$ times by squaring them $\log_2k$
times.

The mean square is stable below a learning rate $\eta^*$ that does not depend on $e_i$, and is smaller than
$2/\lambda_{\max}(H)$. With label noise $S$ then settles where noise and contraction balance.

Loss: the task's own, a mean over examples. Time: the rule's.

Source: the recursion is classical. For SGD as a diffusion see Li, Tai and E 2017 (arXiv 1511.06251).
"""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from ...core import (
    AbstractFiniteTask,
    AbstractRule,
    AbstractTask,
    Assumption,
    Kind,
    enforce,
    relative_norm,
    require,
    tolerance_for,
)
from ..descent._gradient_descent import GradientDescent
from ..descent._quadratic_loss import loss_of_vector, quadratic_losses
from ._ornstein_uhlenbeck import OrnsteinUhlenbeck
from ._parameter_moments import (
    AbstractParameterMoments,
    ParameterMoments,
    QuadraticLoss,
    has_minimum,
    keep,
)
from ._sgd_flow import SGDFlow

# Second moments of this many parameters are 465 numbers, and maps between them matrices of that size.
_LARGEST = 30
# Larger whole numbers are not exact in float64.
_BITS = 53


class QuadraticSGD(AbstractParameterMoments):
    r"""Moments of the parameters under mini-batch SGD, or under its diffusion, where every example's loss is quadratic.

    Build it with `from_model`. Of steps it knows whole ones only, as a simulation does. Where the loss is flat nothing
    moves.

    **Attributes:**

    - `quadratic`: the loss around its minimum.
    - `hessians`, `slopes`: $H_i$ and $e_i$ along `quadratic.basis`, shapes `(examples, parameters, parameters)` and
      `(examples, parameters)`.
    - `learning_rate`, `time_per_step`, `batch_size`: $\eta$, the time of a step, $B$ (`None` for the full loss).
    - `steps`: whether the rule takes steps; the time of the diffusion is $\eta$ a step.
    """

    quadratic: QuadraticLoss
    hessians: Float[Array, "examples parameters parameters"]
    slopes: Float[Array, "examples parameters"]
    learning_rate: Float[Array, ""]
    time_per_step: Float[Array, ""]
    batch_size: int | None = eqx.field(static=True)
    steps: bool = eqx.field(static=True)
    kind: ClassVar[Kind] = "exact"

    @classmethod
    def from_model(
        cls, model: PyTree, task: AbstractTask, rule: AbstractRule | None = None, *, check: bool = True
    ) -> "QuadraticSGD":
        """The moments for a model of at most 30 parameters.

        **Arguments:**

        - `model`, `task`: any with a `tx.AbstractFiniteTask` whose every loss is quadratic in the trainable numbers.
        - `rule`: `tx.GradientDescent` with `optax.sgd` (by batches or on the full loss), or `SGDFlow`.
        - `check`: whether to refuse losses that are not quadratic or have no minimum; if not, their quadratic
          approximation is solved.

        **Raises:**

        `ValueError` for another rule or kind of task, more parameters, or what `check` refuses.
        """
        task, rule = _check_case(model, task, rule)
        decay = rule.drift.weight_decay if isinstance(rule, SGDFlow) else rule.weight_decay
        quadratic = QuadraticLoss.at(model, task, decay)
        _, losses = loss_of_vector(model, task.example_losses)
        minimum, basis, curved = quadratic.minimum, quadratic.basis, quadratic.curved
        penalty = quadratic.weight_decay * jnp.eye(minimum.size, dtype=minimum.dtype)
        hessians = jax.hessian(losses)(minimum) + penalty[None, :, :]
        slopes = jax.jacobian(losses)(minimum) + quadratic.weight_decay * minimum[None, :]
        solution = cls(
            quadratic=quadratic,
            hessians=keep(basis.T @ hessians @ basis, curved[None, :, None] & curved[None, None, :]),
            slopes=keep(slopes @ basis, curved[None, :]),
            learning_rate=rule.learning_rate.astype(minimum.dtype),
            time_per_step=(rule.time_per_step if isinstance(rule, GradientDescent) else rule.learning_rate).astype(
                minimum.dtype
            ),
            batch_size=rule.batch_size,
            steps=isinstance(rule, GradientDescent),
        )
        return enforce(solution, cls.__name__, cls.assumptions(model, task, rule)) if check else solution

    @staticmethod
    def assumptions(model: PyTree, task: AbstractTask, rule: AbstractRule | None = None) -> list[Assumption]:
        """What the theory takes for granted: quadratic examples, whose mean is the loss and has a minimum."""
        task, rule = _check_case(model, task, rule)
        decay = rule.drift.weight_decay if isinstance(rule, SGDFlow) else rule.weight_decay
        flat, losses = loss_of_vector(model, task.example_losses)
        mean, whole = (jax.grad(f)(flat) for f in (lambda w: jnp.mean(losses(w)), loss_of_vector(model, task.loss)[1]))
        return [
            quadratic_losses("quadratic examples", model, task.example_losses),
            Assumption("the loss is the mean of the examples", relative_norm(mean - whole, whole), tolerance_for(flat)),
            has_minimum(QuadraticLoss.at(model, task, decay)),
        ]

    def state(self, t: Float[Array, ""]) -> ParameterMoments:
        """The moments at time `t`."""
        generator, size = self._generator, self._size
        initial = self.quadratic.basis.T @ self.quadratic.displacement
        start = jnp.concatenate([jnp.ones_like(initial[:1]), initial, _pack(initial[:, None] * initial[None, :])])
        # By itself the mean may settle where the second moment does not.
        mean = self._evolve(generator[1 : size + 1, 1 : size + 1], initial, t.astype(initial.dtype))
        second = self._evolve(generator, start, t.astype(initial.dtype))[size + 1 :]
        diverged = ~jnp.all(jnp.isfinite(second))
        state = self._state_of(mean, _unpack(jnp.where(diverged, 0.0, second), size))
        return ParameterMoments(
            state.mean, jnp.where(diverged, jnp.inf, state.second), jnp.where(diverged, jnp.inf, state.loss)
        )

    def step(self, state: ParameterMoments) -> ParameterMoments:
        """The state after one step more: the recursion itself."""
        if not self.steps:
            raise ValueError("SGDFlow takes no steps; its moments have a `vector_field`.")
        change = self._velocity(state)
        return self.quadratic.moments(
            state.mean + self.learning_rate * change.mean, state.second + self.learning_rate * change.second
        )

    def vector_field(self, t: Float[Array, ""], state: ParameterMoments) -> ParameterMoments:
        """The velocity of the moments and of the mean loss, under the diffusion."""
        del t
        if self.steps:
            raise ValueError("Steps obey no differential equation; `step` is their recursion.")
        return self._velocity(state)

    def limit(self) -> ParameterMoments:
        """The stationary moments.

        **Raises:**

        `ValueError` from the threshold on.
        """
        message = "QuadraticSGD has no limit: `learning_rate` is at or above the threshold of mean-square stability."
        generator = require(self._generator, self.growth_rate < 0, message)[self._size + 1 :]
        second = jnp.linalg.solve(self._flat_pairs - generator[:, self._size + 1 :], generator[:, 0])
        return self._state_of(jnp.zeros_like(self.slopes[0]), _unpack(second, self._size))

    @property
    def growth_rate(self) -> Float[Array, ""]:
        r"""The rate at which $\mathbb E\,\delta\delta^\top$ finally grows, per unit of time; negative if it settles."""
        matrix = self._generator[self._size + 1 :, self._size + 1 :]
        # Flat directions keep out of the way: less than any other eigenvalue.
        floor = 2 * jnp.linalg.norm(matrix) + 1
        if self.steps:
            # The largest eigenvalue is the spectral radius, since the map preserves positive matrices.
            matrix = jnp.eye(matrix.shape[0], dtype=matrix.dtype) + self.learning_rate * matrix - self._flat_pairs
            return jnp.log(jnp.linalg.eigvalsh(matrix)[-1]) / self.time_per_step
        return jnp.linalg.eigvalsh(matrix - floor * self._flat_pairs)[-1]

    def threshold(self) -> Float[Array, ""]:
        r"""$\eta^*$, the learning rate at and above which the mean square does not settle; the same for any labels.

        It is $\min_S 2\operatorname{tr}SHS$ over what $\eta$ and $S$ multiply in the change of $S$; for the full loss
        $2/\lambda_{\max}(H)$, and infinite for a diffusion without noise.
        """
        contraction, noise = (matrix[self._size + 1 :, self._size + 1 :] for matrix in self._maps)
        root = jnp.linalg.cholesky(contraction + self._flat_pairs)
        half = jax.scipy.linalg.solve_triangular(root, noise, lower=True)
        whole = jax.scipy.linalg.solve_triangular(root, half.T, lower=True)
        largest = jnp.linalg.eigvalsh((whole + whole.T) / 2)[-1]
        return jnp.where(largest > 0, 1 / jnp.where(largest > 0, largest, 1.0), jnp.inf)

    def small_rate_limit(self) -> OrnsteinUhlenbeck:
        r"""The Ornstein-Uhlenbeck process that has the noise of the minimum everywhere.

        The noise is $\tfrac\eta{Bn}\sum_ie_ie_i^\top$. Its moments differ from those of SGD by $O(\eta)$. Its time is
        $\eta$ a step.
        """
        slopes = self.slopes @ self.quadratic.basis.T
        noise = self.learning_rate * self._noise_share * slopes.T @ slopes / slopes.shape[0]
        return OrnsteinUhlenbeck.around(self.quadratic, noise)

    @property
    def _size(self) -> int:
        return self.quadratic.minimum.size

    @property
    def _noise_share(self) -> float:
        """1/B."""
        return 0.0 if self.batch_size is None else 1 / self.batch_size

    @property
    def _flat_pairs(self) -> Float[Array, "pairs pairs"]:
        """One on the diagonal wherever one of two directions is flat, and nothing moves."""
        curved = self.quadratic.curved
        pairs = (curved[:, None] & curved[None, :])[np.triu_indices(self._size)]
        return jnp.diag(jnp.where(pairs, 0.0, 1.0).astype(self.slopes.dtype))

    def _contraction(self, one: Array, mean: Array, second: Array) -> tuple[Array, Array, Array]:
        matrix = jnp.mean(self.hessians, axis=0)
        return 0 * one, matrix @ mean, matrix @ second + second @ matrix

    def _agitation(self, one: Array, mean: Array, second: Array) -> tuple[Array, Array, Array]:
        """What the learning rate multiplies in the change of the second moment."""
        matrix, examples = jnp.mean(self.hessians, axis=0), self.slopes.shape[0]
        both = self.hessians @ second @ self.hessians
        cross = jnp.einsum("iab,b,ic->ac", self.hessians, mean, self.slopes) / examples
        squares = jnp.mean(both, axis=0) + cross + cross.T + one * self.slopes.T @ self.slopes / examples
        overshoot = self.steps - self._noise_share
        return 0 * one, 0 * mean, self._noise_share * squares + overshoot * matrix @ second @ matrix

    @property
    def _maps(self) -> tuple[Float[Array, "moments moments"], Float[Array, "moments moments"]]:
        """The matrices of contraction and agitation, on (1, m, S) as one vector."""

        def matrix_of(function):
            def on_vector(y):
                one, mean, second = y[0], y[1 : self._size + 1], _unpack(y[self._size + 1 :], self._size)
                one, mean, second = function(one, mean, second)
                return jnp.concatenate([one[None], mean, _pack(second)])

            length = 1 + self._size + self._size * (self._size + 1) // 2
            return jax.vmap(on_vector, out_axes=1)(jnp.eye(length, dtype=self.slopes.dtype))

        return matrix_of(self._contraction), matrix_of(self._agitation)

    @property
    def _generator(self) -> Float[Array, "moments moments"]:
        """What moves (1, m, S) per unit of flow time; per step, once multiplied by the learning rate."""
        contraction, agitation = self._maps
        return self.learning_rate * agitation - contraction

    def _velocity(self, state: ParameterMoments) -> ParameterMoments:
        basis = self.quadratic.basis
        along = jnp.ones_like(state.loss), basis.T @ state.mean, basis.T @ state.second @ basis
        _, mean, contraction = self._contraction(*along)
        second = self.learning_rate * self._agitation(*along)[2] - contraction
        return self.quadratic.velocity(-basis @ mean, basis @ second @ basis.T)

    def _state_of(self, mean: Array, second: Array) -> ParameterMoments:
        basis = self.quadratic.basis
        return self.quadratic.moments(basis @ mean, basis @ second @ basis.T)

    def _evolve(self, generator: Array, y: Array, t: Array) -> Array:
        """Where the generator takes a vector in a time."""
        identity = jnp.eye(y.size, dtype=y.dtype)
        if self.steps:
            return _power(identity + self.learning_rate * generator, y, jnp.rint(t / self.time_per_step))
        # A whole number of short intervals and the rest, both by Taylor's series.
        size = jax.lax.stop_gradient(jnp.linalg.norm(generator))
        interval = 1 / jnp.where(size > 0, 2 * size, 1.0)
        count = jnp.minimum(jnp.floor(t / interval), 2.0**_BITS - 1)
        rest = jnp.where(count < 2.0**_BITS - 1, t, 0.0) - jnp.where(count < 2.0**_BITS - 1, count, 0.0) * interval
        return _power(_exponential(interval * generator, identity), _exponential(rest * generator, y), count)


def _exponential(matrix: Array, x: Array) -> Array:
    """exp(A)x for a matrix of norm one half at most."""
    total = x
    for k in range(16, 0, -1):
        total = x + matrix @ total / k
    return total


def _power(matrix: Array, y: Array, n: Array) -> Array:
    """Aⁿy by squaring; infinite where it overflows."""

    def square(carry, _):
        matrix, y, n = carry
        finite = jnp.all(jnp.isfinite(matrix))
        safe = jnp.where(finite, matrix, 0.0)
        y = jnp.where(jnp.mod(n, 2) == 1, jnp.where(finite, safe @ y, jnp.inf), y)
        return (jnp.where(finite, safe @ safe, jnp.inf), y, jnp.floor(n / 2)), None

    (_, y, _), _ = jax.lax.scan(square, (matrix, y, jnp.minimum(n, 2.0**_BITS - 1)), None, length=_BITS)
    return jnp.where(jnp.isnan(y), jnp.inf, y)


def _pack(matrix: Array) -> Array:
    """Coordinates of a symmetric matrix in an orthonormal basis."""
    rows, columns = np.triu_indices(matrix.shape[0])
    return matrix[rows, columns] * jnp.asarray(np.where(rows == columns, 1.0, np.sqrt(2.0)), matrix.dtype)


def _unpack(coordinates: Array, size: int) -> Array:
    """The symmetric matrix with these coordinates."""
    rows, columns = np.triu_indices(size)
    half = coordinates * jnp.asarray(np.where(rows == columns, 0.5, np.sqrt(0.5)), coordinates.dtype)
    upper = jnp.zeros((size, size), coordinates.dtype).at[rows, columns].set(half)
    return upper + upper.T


def _check_case(model: PyTree, task: PyTree, rule: PyTree) -> tuple[AbstractFiniteTask, GradientDescent | SGDFlow]:
    """The task and the rule, if theory covers them."""
    if not isinstance(task, AbstractFiniteTask):
        raise ValueError(f"`task` must be a tx.AbstractFiniteTask for QuadraticSGD; got {type(task).__name__}.")
    size = sum(x.size for x in jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array)))
    if size > _LARGEST:
        raise ValueError(
            f"`model` must have at most {_LARGEST} parameters for QuadraticSGD, whose second moments are moved by "
            f"matrices that grow with their fourth power; got {size}."
        )
    if isinstance(rule, SGDFlow):
        if rule.examples != task.examples:
            raise ValueError(f"`rule` must have the {task.examples} examples of `task`; got {rule.examples}.")
        return task, rule
    if isinstance(rule, GradientDescent) and rule.optimiser is optax.sgd:
        return task, rule
    raise ValueError(
        f"`rule` must be tx.GradientDescent with optax.sgd, or tx.rules.SGDFlow, for QuadraticSGD; got {rule!r}."
    )

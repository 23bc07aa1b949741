r"""The linear perceptron learning online: one linear unit imitates another, solved at every size.

Set-up. A `SoftCommittee` of one unit with linear activation, $f(x) = w\cdot x/\sqrt N$, learns from noisy answers
$y = w^*\cdot x/\sqrt N + \sigma\zeta$ to fresh $x\sim\mathcal N(0, I_N)$, by steps of `OnlineSGD` with learning rate
$\eta$ on batches of $B$; loss $\tfrac12(f - y)^2$; time is steps$/N$. Let $R = w\cdot w^*/N$, $T = \lVert w^*\rVert^2/N$
and $\epsilon = \lVert w - w^*\rVert^2/2N$, the generalisation error.

`OnlinePerceptron`: averaged over the examples, exactly at every $N$, a step is

$$R \leftarrow R + \frac\eta N(T - R),\qquad \epsilon \leftarrow
\epsilon\,\Big(1 - \frac{2\eta}N + \frac{\eta^2}{N^2}\,\frac{N + 1 + B}B\Big) + \frac{\eta^2\sigma^2}{2NB}.$$

`OnlinePerceptronLimit`: as $N\to\infty$, where single runs no longer scatter, $\dot R = \eta\,(T - R)$ and
$\dot\epsilon = -(2\eta - \eta^2/B)\,\epsilon + \eta^2\sigma^2/2B$. The mean is off by $O(1/N)$.

Source: Saad and Solla 1995, Phys. Rev. E 52, 4225, of whose soft committee machine it is the simplest case.
"""

import abc
import math
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..analysis import Linear
from ..core import AbstractRule, AbstractSolution, AbstractTask, Assumption, Kind, enforce, require
from ..special import exprel
from ._committee import SoftCommittee
from ._committee_task import CommitteeTask, check_committee
from ._online_sgd import OnlineSGD


class OnlinePerceptronState(eqx.Module):
    r"""How far a linear unit is from its teacher.

    **Attributes:**

    - `cross`: $R = w\cdot w^*/N$.
    - `error`: $\epsilon = \lVert w - w^*\rVert^2/2N$, the generalisation error (without the noise of the answers).
    """

    cross: Float[Array, "*times"]
    error: Float[Array, "*times"]


class AbstractOnlinePerceptron(AbstractSolution[OnlinePerceptronState]):
    """What the two descriptions of the online perceptron have in common.

    **Attributes:**

    - `initial`: the state at the start.
    - `task`, `rule`: the case.
    """

    initial: OnlinePerceptronState
    task: CommitteeTask
    rule: OnlineSGD

    # The fraction of T - R taken per step from which on R does not settle; a flow always settles.
    _largest_turn: ClassVar[float]

    def reduce(self, model: SoftCommittee) -> OnlinePerceptronState:
        """The state of one student; theory speaks of the mean over the examples."""
        return _state_of(_weights(model, self.task), self.task)

    def limit(self) -> OnlinePerceptronState:
        r"""The state after infinitely many steps.

        Below the threshold the student is aligned, and noise alone is left; above it the error is infinite unless there
        is neither noise nor anything to learn. Where steps are so large that $R$ does not settle, it is NaN.
        """
        turn, loss, gain = self._rates()
        teacher, start = self._teacher, self.initial
        aligned = (start.cross == teacher) | ((turn > 0) & (turn < self._largest_turn))
        # At the threshold the error stays, or is added to for ever.
        stays = (gain == 0) & ((loss == 0) | (start.error == 0))
        above = jnp.where(stays, start.error, jnp.inf)
        left = jnp.where(loss > 0, gain / jnp.where(loss > 0, loss, 1.0), above)
        return OnlinePerceptronState(jnp.where(aligned, teacher, jnp.nan), left)

    @abc.abstractmethod
    def stability_threshold(self) -> Float[Array, ""]:
        """The learning rate above which the mean error grows."""

    @abc.abstractmethod
    def _rates(self) -> tuple[Array, Array, Array]:
        """What one step takes of T - R and of the error, as fractions, and what it adds to the error."""

    @property
    def _teacher(self) -> Float[Array, ""]:
        weights = self.task.teacher.weights[0]
        return weights @ weights / weights.shape[0]

    @property
    def _eta(self) -> Float[Array, ""]:
        return self.rule.learning_rate.astype(self.initial.error.dtype)

    def _moved(self, kept: Array, kept_error: Array, gained: Array, steps: Array) -> OnlinePerceptronState:
        """The state after a number of steps, given what is kept of the start, and gained of each step's contribution."""
        gain, start = self._rates()[2], self.initial
        # What is absent does not grow, however fast it would.
        error = jnp.where(start.error == 0, 0.0, kept_error * start.error) + jnp.where(gain == 0, 0.0, gained * gain)
        moved = OnlinePerceptronState(self._teacher + kept * (start.cross - self._teacher), error)
        return jax.tree.map(lambda x, y: jnp.where(jnp.isinf(steps), x, y), self.limit(), moved)


class OnlinePerceptron(AbstractOnlinePerceptron):
    """The mean over all examples after every step, exact at every size.

    Build it with `from_model`. Like a simulation, it knows whole steps only: `evaluate(t)` is the state after
    `round(t / rule.time_per_step)` of them.
    """

    kind: ClassVar[Kind] = "exact"
    _largest_turn: ClassVar[float] = 2.0

    @classmethod
    def from_model(
        cls, model: PyTree, task: AbstractTask, rule: AbstractRule | None = None, *, check: bool = True
    ) -> "OnlinePerceptron":
        """The solution for one linear unit that learns from another.

        **Arguments:**

        - `model`, `task`, `rule`: the case.
        - `check`: has no effect; any start, size and learning rate is covered.

        **Raises:**

        `ValueError` if student or teacher is not a `SoftCommittee` of one unit with linear activation and a readout of
        one, or the rule not `OnlineSGD` of the first layer only.
        """
        del check
        return cls(*_case(cls.__name__, model, task, rule))

    @classmethod
    def assumptions(cls, model: PyTree, task: AbstractTask, rule: AbstractRule | None = None) -> tuple[Assumption, ...]:
        """None to be measured: any start, size and learning rate is covered."""
        _case(cls.__name__, model, task, rule)
        return ()

    def state(self, t: Float[Array, ""]) -> OnlinePerceptronState:
        """The mean state after the steps that fit into the time `t`."""
        dtype = self.initial.error.dtype
        steps = jnp.rint(t.astype(dtype) / self.rule.time_per_step.astype(dtype))
        turn, loss, _ = self._rates()
        log = jnp.log1p(-loss)
        finite = jnp.where(jnp.isinf(steps), 0.0, steps)
        # Steps that overshoot change the sign every time.
        overshot = jnp.where((turn > 1) & (finite % 2 == 1), -1.0, 1.0)
        kept = jnp.exp(finite * jnp.log1p(-jnp.minimum(turn, 0.5)))
        kept = jnp.where(turn <= 0.5, kept, overshot * jnp.abs(1 - jnp.maximum(turn, 0.5)) ** finite)
        return self._moved(kept, jnp.exp(finite * log), finite * exprel(finite * log) / exprel(log), steps)

    def step(self, state: OnlinePerceptronState) -> OnlinePerceptronState:
        """The state after one step more: the recursion itself."""
        turn, loss, gain = self._rates()
        return OnlinePerceptronState(state.cross + turn * (self._teacher - state.cross), (1 - loss) * state.error + gain)

    def stability_threshold(self) -> Float[Array, ""]:
        """The learning rate above which the mean error grows, $2NB/(N + 1 + B)$."""
        size, batch = self._size, self.rule.batch_size
        return jnp.asarray(2 * size * batch / (size + 1 + batch), self._eta.dtype)

    @property
    def _size(self) -> int:
        return self.task.teacher.weights.shape[1]

    def _rates(self) -> tuple[Array, Array, Array]:
        size, batch, eta = self._size, self.rule.batch_size, self._eta
        loss = eta / size * (2 - eta * (size + 1 + batch) / (size * batch))
        return eta / size, loss, eta**2 * self.task.noise_scale**2 / (2 * size * batch)


class OnlinePerceptronLimit(AbstractOnlinePerceptron):
    """The limit of many inputs, in which a single run follows the mean. Time is steps$/N$.

    Build it with `from_model`.
    """

    kind: ClassVar[Kind] = "asymptotic"
    _largest_turn: ClassVar[float] = math.inf

    @classmethod
    def from_model(
        cls, model: PyTree, task: AbstractTask, rule: AbstractRule | None = None, *, check: bool = True
    ) -> "OnlinePerceptronLimit":
        """The limit that one linear unit, which learns from another, belongs to.

        **Arguments:**

        - `model`, `task`, `rule`: the case.
        - `check`: whether to refuse a rule with another size than the model's.

        **Raises:**

        `ValueError` as in `OnlinePerceptron.from_model`, and if a step does not take the time $1/N$.
        """
        solution = cls(*_case(cls.__name__, model, task, rule))
        return enforce(solution, cls.__name__, solution._measured()) if check else solution

    @classmethod
    def assumptions(cls, model: PyTree, task: AbstractTask, rule: AbstractRule | None = None) -> tuple[Assumption, ...]:
        """A step must take the time 1/N; any start and learning rate is covered."""
        return cls.from_model(model, task, rule, check=False)._measured()

    def state(self, t: Float[Array, ""]) -> OnlinePerceptronState:
        """The state at time `t`."""
        t = t.astype(self.initial.error.dtype)
        turn, loss, _ = self._rates()
        finite = jnp.where(jnp.isinf(t), 0.0, t)
        return self._moved(jnp.exp(-turn * finite), jnp.exp(-loss * finite), finite * exprel(-loss * finite), t)

    def vector_field(self, t: Float[Array, ""], state: OnlinePerceptronState) -> OnlinePerceptronState:
        """The flow of overlap and error."""
        del t
        turn, loss, gain = self._rates()
        return OnlinePerceptronState(turn * (self._teacher - state.cross), gain - loss * state.error)

    def stability_threshold(self) -> Float[Array, ""]:
        """The learning rate above which the error grows, $2B$."""
        return jnp.asarray(2 * self.rule.batch_size, self._eta.dtype)

    def _rates(self) -> tuple[Array, Array, Array]:
        """As in one step, but per unit of time."""
        batch, eta = self.rule.batch_size, self._eta
        return eta, eta * (2 - eta / batch), eta**2 * self.task.noise_scale**2 / (2 * batch)

    def _measured(self) -> tuple[Assumption, ...]:
        return (self.rule.time_assumption(self.task.size),)


def _case(
    theory: str, model: PyTree, task: PyTree, rule: PyTree
) -> tuple[OnlinePerceptronState, CommitteeTask, OnlineSGD]:
    """The state at the start, and the case, if it is one that the theories cover."""
    if not isinstance(rule, OnlineSGD):
        raise ValueError(f"`rule` must be OnlineSGD for {theory}; got {type(rule).__name__}.")
    if not isinstance(task, CommitteeTask):
        raise ValueError(f"`task` must be a CommitteeTask; got {type(task).__name__}.")
    _weights(task.teacher, task, "task.teacher")
    rule = require(rule, rule.readout_rate == 0, f"`rule` must leave the readout as it is for {theory}.")
    return _state_of(_weights(model, task), task), task, rule


def _weights(model: PyTree, task: CommitteeTask, name: str = "model") -> Float[Array, " in"]:
    """The weights of one linear unit that fits the task."""
    model = check_committee(model, task)
    if model.weights.shape[0] != 1 or not isinstance(model.activation, Linear):
        raise ValueError(
            f"`{name}` must be one unit with activation tx.analysis.Linear(); got {model.weights.shape[0]} with "
            f"{model.activation}."
        )
    readout = model.readout[0]
    return require(model.weights[0], readout == 1, f"`{name}` must have a readout of one.")


def _state_of(weights: Float[Array, " in"], task: CommitteeTask) -> OnlinePerceptronState:
    teacher, size = task.teacher.weights[0], weights.shape[0]
    return OnlinePerceptronState(weights @ teacher / size, (weights - teacher) @ (weights - teacher) / (2 * size))

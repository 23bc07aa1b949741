r"""Learning a linear map by perturbations: the mean squared error after every step, exact.

Set-up. One layer $y = Wx$ with $M$ outputs and $N$ inputs, fresh examples $x\sim\mathcal N(0, I)$ with answers $W_*x$,
loss $\tfrac12\lVert y - W_*x\rVert^2$, averaged over a batch of $B$ examples or over all. Steps of learning rate $\eta$
go along the gradient (GD), or along an estimate of it from noise of scale $\sigma$: on the outputs (`NodePerturbation`,
NP), on the weights (`WeightPerturbation`, WP), or on the weights in both directions (`SPSA`). All are unbiased, so that
$q = \mathbb E\lVert W - W_*\rVert_F^2$ obeys

$$q\leftarrow (1 - 2\eta + \eta^2R)\,q + \eta^2S.$$

With $d = MN$ numbers to learn,

| | $R$ | $S$ |
|---|---|---|
| GD | $1 + (N + 1)/B$ | 0 |
| NP | $1 + [(M + 2)(N + 2) - 1]/B$ | $\tfrac{\sigma^2}{4B}d(M + 2)(M + 4)$ |
| WP | $(d + 2)[1 + (N + 1)/B]$ | $\tfrac{\sigma^2}4d(d + 4)[d + 2 + 2(M + N + 1)/B]$ |
| SPSA | $d\,[1 + (N + 1)/B]$ | 0 |

One step shrinks $q$ most at $\eta = 1/R$, by $1 - 1/R$, and the mean diverges from $\eta = 2/R$ on. At $B = 1$ the best
speeds of GD, NP and WP are as $1 : 1/(M + 2) : 1/(MN + 2)$.

Assumes nothing about the start. Loss: $q/2$. Time: the rule's, by default $\eta$ a step.

Source: Werfel, Xie and Seung 2005, for one example at a time; batches and SPSA by the same averages of Gaussian numbers.
"""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..core import AbstractRule, AbstractSolution, AbstractTask, Assumption, Kind, require
from ..rules import SPSA, GradientDescent, NodePerturbation, WeightPerturbation, plain_descent, refuse_decay
from ..special import geometric
from ._gaussian_map_task import GaussianMapTask
from ._network import DeepLinear

Rule = GradientDescent | NodePerturbation | WeightPerturbation | SPSA


class MapDistance(eqx.Module):
    r"""How far a linear map is from its teacher.

    **Attributes:**

    - `square`: $\lVert W - W_*\rVert_F^2$.
    - `loss`: half of it.
    """

    square: Float[Array, "*times"]
    loss: Float[Array, "*times"]


class PerturbationLearning(AbstractSolution[MapDistance]):
    """The mean over examples and noise after every step.

    Build it with `from_model`. Like a simulation, it knows whole steps only: `evaluate(t)` is the state after
    `round(t / rule.time_per_step)` of them.

    **Attributes:**

    - `initial`: $q(0)$.
    - `task`, `rule`: the case.
    """

    initial: Float[Array, ""]
    task: GaussianMapTask
    rule: Rule
    kind: ClassVar[Kind] = "exact"

    @classmethod
    def from_model(
        cls, model: PyTree, task: AbstractTask, rule: AbstractRule | None = None, *, check: bool = True
    ) -> "PerturbationLearning":
        """The mean for a layer, its population and a rule.

        **Arguments:**

        - `model`: a `DeepLinear` network of one layer.
        - `task`: a `GaussianMapTask`.
        - `rule`: `NodePerturbation` (with a `batch_size`), `WeightPerturbation`, `SPSA`, or `tx.GradientDescent` with
          `optax.sgd`.
        - `check`: has no effect; any start and learning rate is covered.

        **Raises:**

        `ValueError` for another model, task or rule.
        """
        del check
        return cls(*_check_case(model, task, rule))

    @classmethod
    def assumptions(cls, model: PyTree, task: AbstractTask, rule: AbstractRule | None = None) -> tuple[Assumption, ...]:
        """None to be measured."""
        _check_case(model, task, rule)
        return ()

    @property
    def scatter(self) -> Float[Array, ""]:
        r"""$R$: the mean square of the estimated gradient, in units of that of the gradient; without the part of $S$."""
        outputs, inputs = self.task.teacher.shape
        spread = 1 + (inputs + 1) * self._share
        factors = {
            GradientDescent: spread,
            NodePerturbation: 1 + ((outputs + 2) * (inputs + 2) - 1) * self._share,
            WeightPerturbation: (outputs * inputs + 2) * spread,
            SPSA: outputs * inputs * spread,
        }
        return jnp.asarray(factors[type(self.rule)], self.initial.dtype)

    @property
    def agitation(self) -> Float[Array, ""]:
        r"""$S$: the mean square of the estimated gradient where the gradient vanishes."""
        outputs, inputs = self.task.teacher.shape
        size = outputs * inputs
        if isinstance(self.rule, NodePerturbation):
            factor = size * (outputs + 2) * (outputs + 4) * self._share / 4
        elif isinstance(self.rule, WeightPerturbation):
            factor = size * (size + 4) * (size + 2 + 2 * (outputs + inputs + 1) * self._share) / 4
        else:
            return jnp.zeros_like(self.initial)
        return factor * self.rule.noise_scale.astype(self.initial.dtype) ** 2

    @property
    def best_learning_rate(self) -> Float[Array, ""]:
        """$1/R$, at which a step shrinks the error most."""
        return 1 / self.scatter

    @property
    def threshold(self) -> Float[Array, ""]:
        """$2/R$, the learning rate at and above which the mean error does not settle."""
        return 2 / self.scatter

    @property
    def factor(self) -> Float[Array, ""]:
        r"""$1 - 2\eta + \eta^2R$, by which a step multiplies the error."""
        return 1 - self._shrinkage

    def state(self, t: Float[Array, ""]) -> MapDistance:
        """The mean after the steps that fit into the time `t`."""
        dtype = self.initial.dtype
        kept, total = geometric(self._shrinkage, jnp.rint(t.astype(dtype) / self.rule.time_per_step.astype(dtype)))
        # What is absent neither grows nor adds up, however long.
        start = jnp.where(self.initial == 0, 0.0, kept * self.initial)
        gain = self._rate**2 * self.agitation
        return _state_of(start + jnp.where(gain == 0, 0.0, total * gain))

    def limit(self) -> MapDistance:
        r"""What the noise leaves in the end, $\eta S/(2 - \eta R)$.

        **Raises:**

        `ValueError` from the threshold on, unless there is neither noise nor anything to learn.
        """
        done = (self.initial == 0) & (self.agitation == 0)
        message = "PerturbationLearning has no limit: `learning_rate` is at or above the threshold."
        time = require(jnp.full_like(self.initial, jnp.inf), (self._shrinkage > 0) | done, message)
        return self.state(time)

    def reduce(self, model: DeepLinear) -> MapDistance:
        """The error of one layer; theory speaks of its mean over runs."""
        return _state_of(jnp.sum(self.task.error(model) ** 2))

    @property
    def _rate(self) -> Float[Array, ""]:
        return self.rule.learning_rate.astype(self.initial.dtype)

    @property
    def _share(self) -> float:
        """1/B."""
        return 0.0 if self.rule.batch_size is None else 1 / self.rule.batch_size

    @property
    def _shrinkage(self) -> Float[Array, ""]:
        return self._rate * (2 - self._rate * self.scatter)


def _state_of(square: Array) -> MapDistance:
    return MapDistance(square, square / 2)


def _check_case(model: PyTree, task: PyTree, rule: PyTree) -> tuple[Float[Array, ""], GaussianMapTask, Rule]:
    """The squared error at the start, and the case, if theory covers it."""
    if not isinstance(task, GaussianMapTask):
        raise ValueError(f"`task` must be a GaussianMapTask; got {type(task).__name__}.")
    if not isinstance(model, DeepLinear) or model.depth != 1:
        raise ValueError(f"`model` must be a DeepLinear network of 1 layer for PerturbationLearning; got {model!r}.")
    initial = jnp.sum(task.error(model) ** 2)
    theory = PerturbationLearning.__name__
    outputs = isinstance(rule, NodePerturbation) and rule.batch_size is not None and rule.layers is None
    if isinstance(rule, WeightPerturbation | SPSA) or outputs:
        return initial, task, refuse_decay(rule, theory)
    descent = plain_descent(rule, theory)
    if descent is not None:
        return initial, task, descent
    raise ValueError(
        "`rule` must be NodePerturbation of outputs with a `batch_size`, WeightPerturbation, SPSA, or tx.GradientDescent "
        f"with optax.sgd, for PerturbationLearning; got {rule!r}."
    )

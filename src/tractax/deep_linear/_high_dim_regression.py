r"""Generalisation dynamics of linear regression in high dimension: overtraining, early stopping, ridge.

Set-up. A teacher $y = \bar wX + \varepsilon$ with $N$ inputs and $P$ examples (columns of $X$); entries of $X$, $\bar w$,
$\varepsilon$ and of the initial weights are independent with variances $1/N$, $\sigma_w^2$, $\sigma_\varepsilon^2$,
$\sigma_0^2$. A one-layer network follows $\tau\dot w = (y - wX)X^\top - \gamma w$: gradient flow on
$\tfrac12\sum_\mu(y_\mu - wx_\mu)^2$, a sum over examples. Errors are means per example, and the generalisation error
includes the noise $\sigma_\varepsilon^2$.

Averaged over teacher, noise and initial weights, every eigenvalue $l$ of $XX^\top$ contributes on its own. Without decay

$$E_g = \big\langle(\sigma_w^2 + \sigma_0^2)\,e^{-2lt/\tau} + \sigma_\varepsilon^2(1 - e^{-lt/\tau})^2/l\big\rangle_l +
\sigma_\varepsilon^2 .$$

With the eigenvalues of given inputs this average is exact; as $N, P \to \infty$ at $\alpha = P/N$ they follow the
Marchenko–Pastur law, and one training run has no fluctuations. Errors averaged over teacher, noise and start then
deviate by $O(1/N)$, those of a single run by $O(1/\sqrt N)$.

Source: Advani and Saxe 2017, arXiv 1710.03667.
"""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..core import (
    AbstractRule,
    AbstractSolution,
    Assumption,
    Kind,
    check_positive,
    enforce,
    relative_norm,
    require,
)
from ._base import check_flow
from ._linear_regression import check_shallow, relaxation
from ._network import DeepLinear
from ._spectrum import Spectrum, marchenko_pastur
from ._teacher_regression import RegressionErrors, TeacherRegression


class HighDimRegression(AbstractSolution[RegressionErrors]):
    r"""Average training and generalisation errors of linear regression, as functions of time.

    Made from a spectrum: `HighDimRegression(marchenko_pastur(0.5), noise_variance=0.2)` is the high-dimensional limit at
    $\alpha = 1/2$; with `empirical_spectrum(X)` it is the exact average over teacher, noise and initial weights at given
    inputs. `from_model` makes the former from a network and a data set, so that simulations can be compared.

    **Arguments:**

    - `spectrum`: the eigenvalues of $XX^\top$.
    - `teacher_variance`, `initial_variance`, `noise_variance`: $\sigma_w^2$, $\sigma_0^2$ (per weight) and
      $\sigma_\varepsilon^2$ (per target).
    - `weight_decay`: $\gamma$, the coefficient of the penalty $\tfrac\gamma2\lVert w\rVert^2$.
    - `time_constant`: $\tau$.
    - `task`: the data set that `reduce` measures networks on, if any.

    **Raises:**

    `ValueError` for a negative variance or decay, or a time constant that is not positive.
    """

    spectrum: Spectrum
    teacher_variance: Float[Array, ""]
    initial_variance: Float[Array, ""]
    noise_variance: Float[Array, ""]
    weight_decay: Float[Array, ""]
    time_constant: Float[Array, ""]
    task: TeacherRegression | None
    kind: ClassVar[Kind] = "asymptotic"

    def __init__(
        self,
        spectrum: Spectrum,
        *,
        teacher_variance: ArrayLike = 1.0,
        initial_variance: ArrayLike = 0.0,
        noise_variance: ArrayLike = 0.0,
        weight_decay: ArrayLike = 0.0,
        time_constant: ArrayLike = 1.0,
        task: TeacherRegression | None = None,
    ):
        def number(name: str, value: ArrayLike, zero: bool = True) -> Array:
            return check_positive(name, value, zero=zero).astype(spectrum.load.dtype)

        self.spectrum = spectrum
        self.teacher_variance = number("teacher_variance", teacher_variance)
        self.initial_variance = number("initial_variance", initial_variance)
        self.noise_variance = number("noise_variance", noise_variance)
        self.weight_decay = number("weight_decay", weight_decay)
        self.time_constant = number("time_constant", time_constant, zero=False)
        self.task = task

    @classmethod
    def from_model(
        cls, model: DeepLinear, task: TeacherRegression, rule: AbstractRule | None = None, *, check: bool = True
    ) -> "HighDimRegression":
        """The high-dimensional limit that a network of one layer and a data set belong to.

        The variances of teacher and initial weights are those measured.

        **Raises:**

        `ValueError` if the network has more than one layer or does not fit the task, the rule is not gradient flow, or
        the case is further from an assumption than chance explains.
        """
        weights, rule = check_shallow(model, task), check_flow(rule, cls.__name__)
        solution = cls(
            marchenko_pastur(jnp.asarray(task.load, weights.dtype)),
            teacher_variance=jnp.mean(task.teacher**2),
            initial_variance=jnp.mean(weights**2),
            noise_variance=task.noise_variance,
            weight_decay=rule.weight_decay,
            time_constant=rule.time_constant,
            task=task,
        )
        return enforce(solution, cls.__name__, cls.assumptions(model, task, rule)) if check else solution

    @classmethod
    def assumptions(
        cls, model: DeepLinear, task: TeacherRegression, rule: AbstractRule | None = None
    ) -> tuple[Assumption, ...]:
        """How far the case is from what the theory takes for granted; tolerances are what chance leaves at this size."""
        weights = check_shallow(model, task)
        check_flow(rule, cls.__name__)
        n_in, examples = task.inputs.shape
        power = jnp.sum(task.inputs**2)
        # For independent entries the second moment of the eigenvalues is α + α² + α/N.
        gram = task.inputs @ task.inputs.T if n_in <= examples else task.inputs.T @ task.inputs
        second = jnp.sum(gram**2) / (examples * (1 + (examples + 1) / n_in))
        overlap = relative_norm(weights @ task.teacher, jnp.linalg.norm(weights) * jnp.linalg.norm(task.teacher))
        chance = (2 / (n_in * examples)) ** 0.5
        return (
            Assumption("inputs of variance 1/N, ‖X‖² = P", jnp.abs(power / examples - 1), 5 * chance),
            Assumption("independent inputs, tr (XXᵀ)² = P(1 + α + 1/N)", jnp.abs(second - 1), 15 * chance),
            Assumption("initial weights independent of the teacher", overlap, 5 / n_in**0.5),
        )

    def state(self, t: Float[Array, ""]) -> RegressionErrors:
        """The errors at time `t`, infinite where the limit diverges."""
        t = t.astype(self.spectrum.load.dtype) / self.time_constant
        l, load = self.spectrum.eigenvalues, self.spectrum.load
        kept, gained = relaxation(l, self.weight_decay, t)
        kept_at_zero, gained_at_zero = relaxation(jnp.zeros_like(load), self.weight_decay, t)
        # What is missing of the teacher: e^{-rt} plus what decay holds back.
        missing, missing_at_zero = kept + self.weight_decay * gained, kept_at_zero + self.weight_decay * gained_at_zero
        from_weights = self.teacher_variance * missing**2 + self.initial_variance * kept**2
        at_zero = self.teacher_variance * missing_at_zero**2 + self.initial_variance * kept_at_zero**2
        noise = self.noise_variance
        learned = self.spectrum.mean(from_weights + noise * (l * gained) * gained, at_zero)
        fitted = self.spectrum.mean(l * from_weights + noise * missing**2, 0.0)
        # At the critical load the eigenvalues reach down to zero, and the noise that they let in has no limit.
        diverges = jnp.isinf(t) & (self.spectrum.edge + self.weight_decay == 0) & (self.spectrum.null_mass == 0)
        learned = jnp.where(diverges & (noise > 0), jnp.inf, learned)
        return RegressionErrors(fitted / load + jnp.maximum(0.0, 1 - 1 / load) * noise, learned + noise)

    def limit(self) -> RegressionErrors:
        """The errors as t → ∞; without decay, noise makes the generalisation error infinite at load one."""
        return self.state(jnp.asarray(jnp.inf, self.spectrum.load.dtype))

    def reduce(self, model: PyTree) -> RegressionErrors:
        """The errors of a network on the task the solution was made from."""
        if self.task is None:
            raise ValueError("`task` must be given to HighDimRegression to measure networks; got None. Use from_model.")
        weights = self.task.weights_of(model)
        return RegressionErrors(self.task.train_error(weights), self.task.generalisation_error(weights))

    def mode_stopping_times(self) -> Float[Array, " nodes"]:
        r"""When to stop each eigenvalue's mode, $(\tau/l)\ln(1 + l(\sigma_w^2 + \sigma_0^2)/\sigma_\varepsilon^2)$.

        Without noise there is no need to stop: infinity. Weight decay is left out of account.
        """
        signal = self.teacher_variance + self.initial_variance
        noisy = self.noise_variance > 0
        ratio = signal / jnp.where(noisy, self.noise_variance, 1.0)
        l = self.spectrum.eigenvalues
        z = l * ratio
        slow = z < 1e-8
        time = jnp.where(slow, ratio, jnp.log1p(z) / jnp.where(slow, 1.0, l))
        return jnp.where(noisy, self.time_constant * time, jnp.inf)

    def optimal_stopping_time(self) -> Float[Array, ""]:
        """The time at which the generalisation error is lowest: training longer fits noise.

        Zero without anything to learn, infinite without noise.

        **Raises:**

        `ValueError` with weight decay, which is the alternative to stopping.
        """
        decay = self.weight_decay
        message = "`weight_decay` must be zero for an optimal stopping time."
        solution: HighDimRegression = require(self, decay == 0, message)
        stops = solution.mode_stopping_times()
        interior = (solution.noise_variance > 0) & (jnp.max(stops) > 0)
        # Before the first mode's best time all errors fall, after the last one's all rise.
        low, high = (jnp.log(jnp.where(interior, x, 1.0)) for x in (jnp.min(stops), jnp.max(stops)))

        def slope(log_t, solution):
            """∂E_g/∂t, over the same sum with all terms positive."""
            l, masses = solution.spectrum.eigenvalues, solution.spectrum.masses
            kept, gained = relaxation(l, solution.weight_decay, jnp.exp(log_t) / solution.time_constant)
            let_in = jnp.sum(masses * l * kept * gained) * solution.noise_variance
            still_learned = jnp.sum(masses * l * kept**2) * (solution.teacher_variance + solution.initial_variance)
            total = jnp.where(interior, let_in + still_learned, 1.0)
            return jnp.where(interior, (let_in - still_learned) / total, log_t)

        tolerance = 64 * float(jnp.finfo(low.dtype).eps)
        found = optx.root_find(
            slope,
            optx.Bisection(tolerance, tolerance, flip=False),
            (low + high) / 2,
            args=solution,
            options={"lower": low - 1, "upper": high + 1},
        )
        return jnp.where(interior, jnp.exp(found.value), jnp.where(solution.noise_variance > 0, 0.0, jnp.inf))

    def optimal_weight_decay(self) -> Float[Array, ""]:
        r"""$\gamma = \sigma_\varepsilon^2/\sigma_w^2$: the ridge that gives the lowest limit, the same at every load."""
        return self.noise_variance / self.teacher_variance

    def with_weight_decay(self, weight_decay: ArrayLike) -> "HighDimRegression":
        """The same problem, learned with this weight decay."""
        decay = check_positive("weight_decay", weight_decay, zero=True).astype(self.weight_decay.dtype)
        return eqx.tree_at(lambda solution: solution.weight_decay, self, decay)

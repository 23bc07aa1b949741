"""Advani and Saxe's generalisation dynamics: overtraining is worst where there are as many examples as weights."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ...analysis import Scaling, scaling
from ...core import Kind
from ...deep_linear import (
    DeepLinear,
    HighDimRegression,
    RegressionErrors,
    TeacherRegression,
    empirical_spectrum,
    marchenko_pastur,
)
from ...plotting import overlay
from ...rules import GradientFlow
from ...training import ensemble, train
from .._system import AbstractSystem, Citation, Exponent


class HighDimRegressionSystem(AbstractSystem):
    """Errors in the limit of many inputs and examples, against networks of finite size."""

    name: ClassVar[str] = "high_dim_regression"
    family: ClassVar[str] = "deep_linear"
    kind: ClassVar[Kind] = "asymptotic"
    summary: ClassVar[str] = "overtraining and early stopping of linear regression as N, P → ∞ at fixed P/N"
    citation: ClassVar[Citation] = Citation("Advani, Saxe", 2017, "1710.03667")
    claim: ClassVar[Exponent] = Exponent(-1.0, "exponent in N of the error in the generalisation error")

    def measure(self) -> Scaling:
        """At load two and $t = 10\\tau$: the limit against exact averages at drawn inputs of growing number."""
        limit = theory(2.0).evaluate(10.0).generalisation

        def errors(n_in: float):
            n = int(n_in)

            def deviation(key):
                inputs = jax.random.normal(key, (n, 2 * n)) / n_in**0.5
                exact = HighDimRegression(empirical_spectrum(inputs), noise_variance=NOISE)
                return exact.evaluate(10.0).generalisation - limit

            # Fewer draws of the larger matrices, which take longer.
            return ensemble(deviation, jax.random.split(jax.random.key(n), 51200 // n))

        return scaling(errors, (8.0, 16.0, 32.0, 64.0))

    def draw(self, figure: Any) -> None:
        """Generalisation error over time at three loads, and over loads for three ways to train."""
        ts = jnp.logspace(-1, 2.5, 48)
        loads = (0.5, 1.0, 2.0)
        predicted = jnp.stack([jax.vmap(theory(load).evaluate)(ts).generalisation for load in loads], axis=1)
        simulated = jnp.stack([simulate(load, ts).generalisation for load in loads], axis=1)
        left, right = figure.subplots(1, 2)
        overlay(left, ts, predicted, simulated, [f"$P/N$ = {load}" for load in loads])
        left.set(xlabel="time $t/\\tau$", ylabel="generalisation error", title="Training", xscale="log", ylim=(0, 3))
        grid = jnp.linspace(0.05, 3.0, 119)
        late, stopped, ridge = jax.jit(jax.vmap(strategies))(grid)
        right.plot(grid, late, color="0.2", label="$t = 1000\\tau$")
        right.plot(grid, stopped, color="C0", label="stopped in time")
        right.plot(grid, ridge, color="C1", ls="--", label="optimal weight decay")
        right.set(xlabel="load $P/N$", ylabel="generalisation error", title="Overtraining", ylim=(0, 3))
        right.legend(fontsize=8)


NOISE = 0.2


def theory(load: Any) -> HighDimRegression:
    """Unit teacher, noise of variance 0.2, weights that start at zero."""
    return HighDimRegression(marchenko_pastur(load), noise_variance=NOISE)


def strategies(load: Any) -> tuple[Any, Any, Any]:
    """The generalisation error of long training, of training stopped in time, and of optimal weight decay."""
    solution = theory(load)
    ridge = solution.with_weight_decay(solution.optimal_weight_decay())
    stopped = solution.evaluate(solution.optimal_stopping_time())
    return solution.evaluate(1e3).generalisation, stopped.generalisation, ridge.limit().generalisation


def simulate(load: float, ts: Any, n_in: int = 100, runs: int = 10) -> RegressionErrors:
    """The average of a few trained networks."""

    def one(key):
        task = TeacherRegression.draw(n_in, round(load * n_in), noise_scale=NOISE**0.5, key=key)
        model = DeepLinear((jnp.zeros((1, n_in)),))
        reduce = HighDimRegression.from_model(model, task, check=False).reduce
        return train(model, task, GradientFlow(), ts, observe=reduce).observed

    observed = ensemble(one, jax.random.split(jax.random.key(0), runs))
    return jax.tree.map(lambda x: jnp.mean(x, axis=0), observed)

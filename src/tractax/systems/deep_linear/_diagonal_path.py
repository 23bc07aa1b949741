"""The path of diagonal linear networks started at almost nothing, from one sparse predictor to the next."""

from typing import Any, ClassVar

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...analysis import Scaling, crossing_times, scaling
from ...core import Kind
from ...deep_linear import DiagonalLinear, RegressionTask, sparse_path
from ...plotting import overlay
from ...rules import GradientFlow
from ...training import train
from .._system import AbstractSystem, Citation, Exponent


class DiagonalPathSystem(AbstractSystem):
    """Three inputs, two examples; the predictor jumps twice."""

    name: ClassVar[str] = "diagonal_path"
    family: ClassVar[str] = "deep_linear"
    kind: ClassVar[Kind] = "asymptotic"
    summary: ClassVar[str] = "jumps between sparse predictors of a diagonal linear network with vanishing initial weights"
    citation: ClassVar[Citation] = Citation("Pesme, Flammarion", 2023, "2304.00488")
    claim: ClassVar[Exponent] = Exponent(-1.0, "exponent of the jump times' error in ln(1/α)")

    def task(self) -> RegressionTask:
        """The data."""
        return RegressionTask(jnp.asarray([[1.0, 0.5, -0.3], [0.2, -1.0, 0.8]]), jnp.asarray([1.0, 0.4]))

    def measure(self) -> Scaling:
        """How the largest error of a rescaled jump time falls with ln(1/α), for α from e^-40 to e^-160."""
        task = self.task()
        path = sparse_path(task)
        # One entry jumps at a time, and is half-way where it has made half of the step.
        steps = path.predictors[1:] - path.predictors[:-1]
        moving = jnp.argmax(jnp.abs(steps), axis=1)
        rows = jnp.arange(path.times.shape[0])
        levels = path.predictors[rows, moving] + steps[rows, moving] / 2
        window = jnp.linspace(-20.0, 20.0, 801)

        @jax.jit
        def error(logarithm):
            def one(time, entry, level):
                ts = time * logarithm / 2 + window
                observed = _simulate(task, logarithm, ts)
                half = crossing_times(ts, observed[:, entry][:, None], level)[0]
                return jnp.abs(2 * half / logarithm - time)

            return jnp.max(jax.vmap(one)(path.times, moving, levels))

        return scaling(lambda logarithm: error(jnp.asarray(logarithm)), [40.0, 60.0, 80.0, 120.0, 160.0])

    def draw(self, figure: Any) -> None:
        """The predictor in rescaled time, for two sizes of the initial weights."""
        path = sparse_path(self.task())
        rescaled = jnp.linspace(0.0, 16.0, 641)
        theory = jax.vmap(path.predictor)(rescaled)
        for axes, power in zip(figure.subplots(1, 2, sharey=True), (4, 40), strict=True):
            logarithm = power * jnp.log(10.0)
            observed = _simulate(self.task(), logarithm, rescaled * logarithm / 2)
            overlay(axes, rescaled, theory, observed, [f"$\\beta_{j + 1}$" for j in range(3)], markers=54)
            axes.set(xlabel="rescaled time $2t/\\ln(1/\\alpha)$", title=f"$\\alpha = 10^{{-{power}}}$")
        figure.axes[0].set_ylabel("predictor")


def _simulate(task: RegressionTask, logarithm: Float[Array, ""], ts: Float[Array, " times"]) -> Float[Array, "times in"]:
    model = DiagonalLinear.uniform(task.inputs.shape[1], scale=jnp.exp(-logarithm))
    # Weights this small are only right if their relative error is what counts.
    return train(
        model,
        task,
        GradientFlow(),
        ts,
        observe=_predictor,
        solver=diffrax.Dopri8(),
        stepsize_controller=diffrax.PIDController(rtol=1e-11, atol=0.0),
    ).observed


def _predictor(model: DiagonalLinear) -> Float[Array, " in"]:
    return model.predictor

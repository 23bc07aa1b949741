"""SGD noise in a perceptron: it sets the size of the weights."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ...analysis import Scaling, scaling
from ...core import Kind
from ...plotting import overlay
from ...rules import GradientDescent
from ...teacher_student import LinearClassifier, NoisyPerceptron, PerceptronTask, late_perceptron
from ...training import ensemble, train
from .._system import AbstractSystem, Citation, Exponent


class NoisyPerceptronSystem(AbstractSystem):
    """Signal and noise of a perceptron under one-pass SGD, against simulations of growing size."""

    name: ClassVar[str] = "noisy_perceptron"
    family: ClassVar[str] = "teacher_student"
    kind: ClassVar[Kind] = "asymptotic"
    summary: ClassVar[str] = "one-pass SGD of a perceptron: temperature sets the noise, the signal grows as a power"
    citation: ClassVar[Citation] = Citation("Sclocchi, Geiger, Wyart", 2023, "2301.13703")
    claim: ClassVar[Exponent] = Exponent(-0.5, "exponent in d of the scatter of signal and noise")

    def measure(self) -> Scaling:
        """At $t = 2$: how far single runs are from the limit."""

        def errors(size: float):
            model, task, rule = noisy_case(int(size))
            solution = NoisyPerceptron.from_model(model, task, rule, t1=2.0)
            limit = solution.evaluate(2.0)

            def deviation(key):
                run = train(model, task, rule, jnp.asarray([2.0]), observe=solution.reduce, key=key).observed
                return jnp.hypot(run.signal[0] - limit.signal, run.noise[0] - limit.noise)

            return ensemble(deviation, jax.random.split(jax.random.key(int(size)), 200))

        return scaling(errors, (60.0, 120.0, 240.0))

    def draw(self, figure: Any) -> None:
        """Signal and noise at two temperatures, and the growth of the signal for three kinds of data."""
        import matplotlib

        left, right = figure.subplots(1, 2)
        ts = jnp.linspace(0.0, 10.0, 41)
        theory, simulation, labels = [], [], []
        for temperature in (0.5, 2.0):
            model, task, rule = noisy_case(400, temperature=temperature)
            solution = NoisyPerceptron.from_model(model, task, rule, t1=10.0)
            run = train(model, task, rule, ts, observe=solution.reduce, key=jax.random.key(1)).observed
            limit = jax.vmap(solution.evaluate)(ts)
            theory += [limit.signal, limit.noise]
            simulation += [run.signal, run.noise]
            labels += [f"signal, T = {temperature}", f"noise, T = {temperature}"]
        overlay(left, ts, jnp.stack(theory, axis=1), jnp.stack(simulation, axis=1), labels)
        left.set(xlabel="time $\\eta k$", title="Signal and noise, one run of $d = 400$", ylim=(0, None))
        late, seen = jnp.logspace(-1, 4, 80), jnp.logspace(-1, 2.5, 15)
        colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, 3))
        for colour, exponent in zip(colours, (0.0, 1.0, 3.0), strict=True):
            model, task, rule = noisy_case(200, exponent=exponent)
            solution = NoisyPerceptron.from_model(model, task, rule, t1=late[-1])
            run = train(model, task, rule, seen, observe=solution.reduce, key=jax.random.key(2))
            right.loglog(late, jax.vmap(solution.evaluate)(late).signal, color=colour, label=f"$\\chi$ = {exponent:g}")
            right.loglog(run.ts, run.observed.signal, "o", color=colour, mfc="white", ms=4)
            law = late_perceptron(task, 1.0, late[18:]).signal
            right.loglog(late[18:], law, ":", color="0.1", lw=1.5)
        right.plot([], [], "o", color="0.3", mfc="white", ms=4, label="run, $d = 200$")
        right.plot([], [], ":", color="0.1", label="$t^{1/(3+\\chi)}$")
        right.set(xlabel="time $\\eta k$", ylabel="signal $\\lambda$", title="Late growth")
        right.legend(fontsize=8)


def noisy_case(
    size: int, *, exponent: float = 1.0, temperature: float = 1.0
) -> tuple[LinearClassifier, PerceptronTask, GradientDescent]:
    """A start that is all noise."""
    model = LinearClassifier(jnp.zeros(size).at[1].set(1.0))
    return model, PerceptronTask(size, exponent), GradientDescent(temperature / size, batch_size=1)

"""Softmax heads learn one step of gradient descent on centred inputs, if their signs differ."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...analysis import Scaling, scaling
from ...core import Kind
from ...plotting import overlay
from ...rules import GradientDescent, GradientFlow
from ...training import train
from ...transformers import (
    DebiasedDescent,
    InContextRegression,
    SoftmaxHeads,
    SoftmaxHeadsFlow,
    SoftmaxHeadsTask,
    ridge_risk,
    sampled_heads_risk,
)
from .._system import AbstractSystem, Citation, Exponent

# Initial ω and μ, in units of one over the root of the number of inputs.
_CASES = {
    "one head": ([0.4], [0.4]),
    "two of one sign": ([0.4, 0.2], [0.3, 0.4]),
    "two of opposite signs": ([0.4, -0.2], [0.3, -0.4]),
}


class SoftmaxHeadsSystem(AbstractSystem):
    """Isotropic inputs, eight times as many examples in a prompt, a tenth of the labels' power in noise."""

    name: ClassVar[str] = "softmax_heads"
    family: ClassVar[str] = "transformers"
    kind: ClassVar[Kind] = "asymptotic"
    summary: ClassVar[str] = "softmax heads learn debiased gradient descent in context, if their signs differ"
    citation: ClassVar[Citation] = Citation("He, Pan, Chen, Yang", 2025, "2503.12734")
    claim: ClassVar[Exponent] = Exponent(-1.0, "exponent in d of the gap to the risk at finite size")

    def measure(self) -> Scaling:
        r"""For two heads with $\sqrt d\,\omega = \pm\frac12$, eight independent estimates of the risk at each size."""

        def gaps(size: float) -> Float[Array, " repeats"]:
            task = SoftmaxHeadsTask(regression(int(size)))
            model = SoftmaxHeads(jnp.asarray([0.5, -0.5]) / size**0.5, jnp.asarray([0.8, -0.8]) * size**0.5)

            @jax.jit
            def risks(keys):
                return jax.lax.map(lambda key: sampled_heads_risk(model, task, key=key, samples=8192)[0], keys)

            return risks(jax.random.split(jax.random.key(int(size)), 8)) - task.risk(model)

        return scaling(gaps, (4.0, 8.0, 16.0, 32.0))

    def draw(self, figure: Any) -> None:
        """The flow of the heads against SGD on fresh prompts, and their risks against what they could have learned."""
        data = regression(16)
        task, ts = SoftmaxHeadsTask(data), jnp.geomspace(0.2, 60.0, 73)
        rule = GradientDescent(0.02, batch_size=40)
        left, right = figure.subplots(1, 2)
        risks, sampled = [], []
        for case, (omega, mu) in _CASES.items():
            model = SoftmaxHeads(jnp.asarray(omega) / 4, jnp.asarray(mu) / 4)
            solution = SoftmaxHeadsFlow.from_model(model, task, GradientFlow(), t1=60.001)
            theory = jax.vmap(solution.evaluate)(ts)
            run = train(model, data, rule, ts, observe=solution.reduce, key=jax.random.key(1))
            if case == "two of opposite signs":
                labels = ["$\\omega_1$", "$\\omega_2$", "$\\mu_1$", "$\\mu_2$"]
                predicted, simulated = (
                    jnp.concatenate([4 * heads.omega, heads.mu / 4], axis=1) for heads in (theory, run.observed)
                )
                overlay(left, ts, predicted, simulated, labels)
            risks.append(jax.vmap(task.risk)(theory))
            marked = jax.tree.map(lambda x: x[::4], run.observed)
            sampled.append(jax.lax.map(lambda heads: _risk(heads, task), marked))
        left.set(xlabel="time $t/\\tau$", ylabel="$\\sqrt{d}\\,\\omega$, $\\mu/\\sqrt{d}$", xscale="log")
        left.set(title="Two heads, opposite signs", ylim=(-2.4, 3.0))
        left.legend(fontsize=8, loc="upper left")
        overlay(right, ts, jnp.stack(risks, axis=1), jnp.stack(sampled, axis=1), list(_CASES), simulated_ts=ts[::4])
        levels = {"one step of descent, debiased": DebiasedDescent.best_step(data).risk(data), "ridge": ridge_risk(data)}
        for (name, level), style in zip(levels.items(), ("--", ":"), strict=True):
            right.axhline(float(level), color="0.4", ls=style, lw=1.2, label=name)
        right.set(xlabel="time $t/\\tau$", ylabel="risk", title="$d = 16$ inputs, $L = 128$ examples", xscale="log")
        right.set(yscale="log", ylim=(0.011, 1.2))
        right.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0.0, 0.07))


def regression(inputs: int) -> InContextRegression:
    """Prompts with eight examples for each input, tasks of unit power."""
    unit = jnp.eye(inputs)
    return InContextRegression(unit, 8 * inputs, task_covariance=unit / inputs, noise_variance=0.1)


def _risk(heads: SoftmaxHeads, task: SoftmaxHeadsTask) -> Float[Array, ""]:
    return sampled_heads_risk(heads, task, key=jax.random.key(0), samples=4000)[0]

"""Random balanced weights, solved without alignment; and how λ sets the regime."""

import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ...analysis import cosine_similarity
from ...core import Kind
from ...deep_linear import LambdaBalancedRiccati, LinearTask, balanced, lambda_balanced
from ...plotting import overlay
from ...rules import GradientFlow
from .._system import AbstractRunSystem, Citation, Run, Tolerance


class LambdaBalancedRiccatiSystem(AbstractRunSystem):
    """A random 6-4-5 network from small balanced weights, on a random task."""

    name: ClassVar[str] = "lambda_balanced_riccati"
    family: ClassVar[str] = "deep_linear"
    kind: ClassVar[Kind] = "exact"
    summary: ClassVar[str] = "two-layer network from any λ-balanced weights, without alignment"
    citation: ClassVar[Citation] = Citation("Dominé et al.", 2024, "2409.14623")
    claim: ClassVar[Tolerance] = Tolerance(1e-8)

    def run(self) -> Run:
        """Four hidden units learn the four strongest of five modes."""
        task_key, key = jax.random.split(jax.random.key(0))
        task = LinearTask(jax.random.normal(task_key, (5, 6)))
        model = balanced((6, 4, 5), scale=0.05, key=key)
        rule = GradientFlow()
        return Run(model, task, rule, LambdaBalancedRiccati.from_model(model, task, rule), jnp.linspace(0.0, 10.0, 121))

    def draw(self, figure: Any) -> None:
        """Singular modes over time; the distance that the tangent kernel travels, against λ, for three shapes."""
        run = self.run()
        u, s, vt = jnp.linalg.svd(run.task.optimum, full_matrices=False)

        def strengths(states):
            return jnp.einsum("om,tod,md->tm", u, states.product, vt)

        left, right = figure.subplots(1, 2)
        theory = jax.vmap(run.solution.evaluate)(run.ts)
        simulation = run.simulate().observed
        overlay(left, run.ts, strengths(theory), strengths(simulation), [f"s = {value:.1f}" for value in s])
        left.set(xlabel="time $t/\\tau$", ylabel="mode strength $u^\\top W_2W_1v$", title="Random balanced start")
        for sizes in ((4, 4, 4), (6, 3, 3), (3, 3, 6)):
            lams = jnp.sinh(jnp.linspace(-2.5, 2.5, 31))
            right.plot(lams, [_kernel_distance(lam, sizes) for lam in lams], label="-".join(map(str, sizes)))
        right.set(xlabel="$\\lambda$", ylabel="kernel distance start to end", title="Lazy and rich, by λ and shape")
        right.legend(fontsize=8)


@functools.partial(jax.jit, static_argnums=1)
def _kernel_distance(lam: jax.Array, sizes: tuple[int, int, int]) -> jax.Array:
    """Mean over random tasks and weights of 1 − cos(kernel at the start, kernel at the end)."""

    def one(key):
        task_key, key = jax.random.split(key)
        task = LinearTask(jax.random.normal(task_key, (sizes[2], sizes[0])))
        model = lambda_balanced(sizes, lam=lam, scale=0.1, key=key)
        solution = LambdaBalancedRiccati.from_model(model, task, check=False)
        inputs = jnp.eye(sizes[0])
        return 1 - cosine_similarity(*(solution.evaluate(t).tangent_kernel(inputs) for t in (0.0, 30.0)))

    return jnp.mean(jax.vmap(one)(jax.random.split(jax.random.key(1), 64)))

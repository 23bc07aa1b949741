"""A small task, networks and rules that several tests train."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import tractax as tx
from tractax.deep_linear import LinearTask, gaussian

TASK = LinearTask(jnp.asarray([[2.0, 0.3], [-0.4, 1.0]]))
MODEL = gaussian((2, 3, 2), scale=0.5, key=jax.random.key(0))
FLOW = tx.GradientFlow()
DESCENT = tx.GradientDescent(0.05)
both_rules = pytest.mark.parametrize("rule", [FLOW, DESCENT], ids=["flow", "steps"])


class Regression(tx.AbstractSampledTask):
    """Mean squared error on a data set; `whole` returns all of it as every batch."""

    inputs: jax.Array
    targets: jax.Array
    whole: bool = eqx.field(static=True, default=False)

    def loss(self, model):
        return self.batch_loss(model, jnp.arange(self.inputs.shape[0]))

    def sample(self, key, batch):
        examples = self.inputs.shape[0]
        return jnp.arange(examples) if self.whole else jax.random.randint(key, (batch,), 0, examples)

    def batch_loss(self, model, batch):
        outputs = jax.vmap(model)(self.inputs[batch])
        return jnp.mean(jnp.sum((outputs - self.targets[batch]) ** 2, axis=1)) / 2


def regression(whole=False):
    keys = jax.random.split(jax.random.key(5), 2)
    inputs = jax.random.normal(keys[0], (12, 2))
    return Regression(inputs, inputs @ TASK.optimum.T + 0.1 * jax.random.normal(keys[1], (12, 2)), whole)


def runge_kutta(rule, params, task, t, static, steps=50):
    """The parameters at time `t` under a flow rule whose state they are: quick to compile, accurate for smooth flows."""
    dt, objective = t / steps, tx.Objective(task, static)

    def ahead(w, factor, velocity):
        return jax.tree.map(lambda x, v: x + factor * dt * v, w, velocity)

    def step(w, _):
        k1 = rule.vector_field(0.0, w, objective)
        k2 = rule.vector_field(0.0, ahead(w, 0.5, k1), objective)
        k3 = rule.vector_field(0.0, ahead(w, 0.5, k2), objective)
        k4 = rule.vector_field(0.0, ahead(w, 1.0, k3), objective)
        return ahead(w, 1 / 6, jax.tree.map(lambda a, b, c, d: a + 2 * b + 2 * c + d, k1, k2, k3, k4)), None

    return jax.lax.scan(step, params, length=steps)[0]

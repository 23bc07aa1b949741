"""What a rule costs beyond the same update written by hand in JAX.

A tanh network learns a data set. Steps: a thousand, against a jitted `fori_loop` with the update by hand, where the
number of steps is an argument (as the times of `train` are) or part of the program. Flows: Tsit5 at rtol 1e-6, against
`diffeqsolve` with the vector field by hand. All are called jitted.

    python benchmarks/rules.py
"""

import functools

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from _timing import describe_machine, median_seconds

import tractax as tx
from tractax.deep_linear import RegressionTask
from tractax.rules import HeavyBall, InertialFlow, LionK, ModifiedFlow, Nesterov, WeightPerturbation
from tractax.two_layer import TwoLayerNetwork

STEPS, RATE, MOMENTUM = 1000, 0.01, 0.9
COLUMNS = ("hand", "fixed", "train")


def setting(inputs, hidden, examples):
    """A network and its data."""
    keys = jax.random.split(jax.random.key(0), 4)
    first = jax.random.normal(keys[0], (hidden, inputs)) / inputs**0.5
    second = jax.random.normal(keys[1], (1, hidden)) / hidden**0.5
    x = jax.random.normal(keys[2], (examples, inputs))
    return TwoLayerNetwork(first, second, "tanh"), RegressionTask(x, jnp.sin(x[:, :1]))


def tree(function, *trees):
    """Short for `jax.tree.map`."""
    return jax.tree.map(function, *trees)


def updates(loss, batch_loss, examples):
    """Names, rules, and the same updates by hand: functions of (parameters, memory, step, key) and a first memory."""

    def descent(w, memory, k, key):
        return tree(lambda w, g: w - RATE * g, w, jax.grad(loss)(w)), memory

    def batches(w, memory, k, key):
        batch = jax.random.randint(jax.random.fold_in(key, k), (32,), 0, examples)
        return tree(lambda w, g: w - RATE * g, w, jax.grad(batch_loss)(w, batch)), memory

    def heavy(w, v, k, key):
        v = tree(lambda v, g: MOMENTUM * v - RATE * g, v, jax.grad(loss)(w))
        return tree(jnp.add, w, v), v

    def nesterov(w, before, k, key):
        y = tree(lambda w, g: w - RATE * g, w, jax.grad(loss)(w))
        return tree(lambda y, old: y + k / (k + 3) * (y - old), y, before), y

    def lion(w, m, k, key):
        g = jax.grad(loss)(w)
        w = tree(lambda w, m, g: w - RATE * jnp.sign(0.9 * m + 0.1 * g), w, m, g)
        return w, tree(lambda m, g: 0.99 * m + 0.01 * g, m, g)

    def adam(w, moments, k, key):
        m, v = moments
        g = jax.grad(loss)(w)
        m = tree(lambda m, g: 0.9 * m + 0.1 * g, m, g)
        v = tree(lambda v, g: 0.999 * v + 0.001 * g**2, v, g)
        a, b = 1 - 0.9 ** (k + 1), 1 - 0.999 ** (k + 1)
        return tree(lambda w, m, v: w - RATE * (m / a) / (jnp.sqrt(v / b) + 1e-8), w, m, v), (m, v)

    def perturbed(w, memory, k, key):
        leaves, structure = jax.tree.flatten(w)
        keys = jax.random.split(jax.random.fold_in(key, k), len(leaves))
        noise = [0.01 * jax.random.normal(key, x.shape) for key, x in zip(keys, leaves, strict=True)]
        noise = jax.tree.unflatten(structure, noise)
        gain = RATE / 0.01**2 * (loss(tree(jnp.add, w, noise)) - loss(w))
        return tree(lambda w, n: w - gain * n, w, noise), memory

    def zeros(w):
        return tree(jnp.zeros_like, w)

    return {
        "GradientDescent": (tx.GradientDescent(RATE), descent, lambda w: ()),
        "GradientDescent, batches of 32": (tx.GradientDescent(RATE, batch_size=32), batches, lambda w: ()),
        "GradientDescent, Adam": (tx.GradientDescent(RATE, optax.adam), adam, lambda w: (zeros(w), zeros(w))),
        "HeavyBall": (HeavyBall(RATE, MOMENTUM), heavy, zeros),
        "Nesterov": (Nesterov(RATE), nesterov, lambda w: w),
        "LionK": (LionK(RATE), lion, zeros),
        "WeightPerturbation": (WeightPerturbation(RATE, 0.01), perturbed, lambda w: ()),
    }


def fields(loss):
    """Names, rules, and the same vector fields by hand, with a first state."""

    def gradient_flow(t, w, args):
        return tree(jnp.negative, jax.grad(loss)(w))

    def modified(t, w, args):
        g, hessian = jax.linearize(jax.grad(loss), w)
        return tree(lambda g, hg: -g - RATE / 2 * hg, g, hessian(g))

    def inertial(t, state, args):
        w, v = state
        return v, tree(lambda v, g: -v - g, v, jax.grad(loss)(w))

    return {
        "GradientFlow": (tx.GradientFlow(), gradient_flow, lambda w: w),
        "ModifiedFlow, order 2": (ModifiedFlow(RATE, 2), modified, lambda w: w),
        "InertialFlow": (InertialFlow(1.0, 1.0), inertial, lambda w: (w, tree(jnp.zeros_like, w))),
    }


def main():
    """Prints the table."""
    jax.config.update("jax_enable_x64", True)
    print(describe_machine())
    for inputs, hidden, examples in ((4, 16, 32), (32, 128, 256)):
        model, task = setting(inputs, hidden, examples)
        weights, static = eqx.partition(model, eqx.is_inexact_array)

        def loss(w, task=task, static=static):
            return task.loss(eqx.combine(w, static))

        def batch_loss(w, batch, task=task, static=static):
            return task.batch_loss(eqx.combine(w, static), batch)

        print(f"\n{inputs} inputs, {hidden} units, {examples} examples\n")
        print("| rule | by hand | number of steps compiled in | tx.train | ratio |\n|---|---|---|---|---|")
        table = {}
        for name, (rule, update, memory) in updates(loss, batch_loss, examples).items():

            def hand(steps, weights, key, update=update, memory=memory):
                start = (weights, memory(weights))
                return loss(jax.lax.fori_loop(0, steps, lambda k, carry: update(*carry, k, key), start)[0])

            @jax.jit
            def train(weights, key, rule=rule, task=task, static=static):
                model = eqx.combine(weights, static)
                return tx.train(model, task, rule, [STEPS * rule.time_per_step], key=key).observed

            key = jax.random.key(1)
            table[name] = {
                "hand": functools.partial(jax.jit(hand), jnp.asarray(STEPS), weights, key),
                "fixed": functools.partial(jax.jit(functools.partial(hand, STEPS)), weights, key),
                "train": functools.partial(train, weights, key),
            }
        for name, (rule, field, first) in fields(loss).items():

            @jax.jit
            def hand(weights, field=field, first=first):
                return diffrax.diffeqsolve(
                    diffrax.ODETerm(field),
                    diffrax.Tsit5(),
                    0.0,
                    20.0,
                    None,
                    first(weights),
                    saveat=diffrax.SaveAt(ts=jnp.asarray([20.0])),
                    stepsize_controller=diffrax.PIDController(rtol=1e-6, atol=1e-9),
                    max_steps=2**17,
                ).ys

            @jax.jit
            def train(weights, rule=rule, task=task, static=static):
                model = eqx.combine(weights, static)
                pid = diffrax.PIDController(rtol=1e-6, atol=1e-9)
                return tx.train(model, task, rule, [20.0], solver=diffrax.Tsit5(), stepsize_controller=pid).observed

            table[name] = {"hand": functools.partial(hand, weights), "train": functools.partial(train, weights)}
        for name, functions in table.items():
            seconds = median_seconds(functions, repeats=25)
            ratio = seconds["train"] / seconds["hand"]
            columns = [f"{1e3 * seconds[column]:.2f} ms" if column in seconds else "" for column in COLUMNS]
            print(f"| {name} | {' | '.join(columns)} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()

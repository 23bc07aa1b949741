"""`tx.train` against calling `diffrax.diffeqsolve` by hand, for the same flow, tolerances and recorded loss.

Both are called as they are, where Python costs as much as many steps of a small network, and within a program that is
compiled as a whole.

python benchmarks/train_overhead.py
"""

import functools

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from _timing import describe_machine, median_seconds

import tractax as tx
from tractax.deep_linear import LinearTask, gaussian


def loss(weights, sigma):
    """That of a whitened linear task."""
    w1, w2 = weights
    return jnp.sum((w2 @ w1 - sigma) ** 2) / 2


def velocity(t, weights, sigma):
    """Gradient flow."""
    return jax.tree.map(jnp.negative, jax.grad(loss)(weights, sigma))


def recorded(t, weights, sigma):
    """The loss, as an observable."""
    return loss(weights, sigma)


def by_hand(weights, sigma, ts):
    """What one would write without tractax."""
    return diffrax.diffeqsolve(
        diffrax.ODETerm(velocity),
        diffrax.Tsit5(),
        t0=0.0,
        t1=ts[-1],
        dt0=None,
        y0=weights,
        args=sigma,
        saveat=diffrax.SaveAt(subs=[diffrax.SubSaveAt(ts=ts, fn=recorded), diffrax.SubSaveAt(t1=True)]),
        stepsize_controller=diffrax.PIDController(rtol=1e-8, atol=1e-12),
        max_steps=2**17,
    ).ys


def by_tractax(model, task, rule, ts):
    """The same with it."""
    run = tx.train(model, task, rule, ts)
    return run.observed, run.model


def main():
    """Prints the table."""
    jax.config.update("jax_enable_x64", True)
    print(f"{describe_machine()}; random small weights, 100 recorded losses, Tsit5 at rtol 1e-8\n")
    print("| network | diffeqsolve | tx.train | ratio | both jitted: diffeqsolve | tx.train | ratio |")
    print("|---|---|---|---|---|---|---|")
    for size in (8, 32, 64, 128):
        sigma = jax.random.normal(jax.random.key(0), (size, size)) / size**0.5
        model = gaussian((size, size, size), scale=0.1 / size**0.5, key=jax.random.key(1))
        ts = jnp.linspace(0.0, 30.0, 100)
        ours, hand = (model, LinearTask(sigma), tx.GradientFlow(), ts), (model.weights, sigma, ts)
        seconds = median_seconds(
            {
                "hand": functools.partial(by_hand, *hand),
                "train": functools.partial(by_tractax, *ours),
                "jitted hand": functools.partial(eqx.filter_jit(by_hand), *hand),
                "jitted train": functools.partial(eqx.filter_jit(by_tractax), *ours),
            },
            repeats=301 if size < 64 else 31,
        )
        columns = []
        for prefix in ("", "jitted "):
            hand_seconds, train_seconds = seconds[f"{prefix}hand"], seconds[f"{prefix}train"]
            ratio = train_seconds / hand_seconds
            columns.append(f"{1e3 * hand_seconds:.2f} ms | {1e3 * train_seconds:.2f} ms | {ratio:.2f}")
        print(f"| {size}-{size}-{size} | {' | '.join(columns)} |", flush=True)


if __name__ == "__main__":
    main()

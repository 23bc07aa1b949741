"""`tx.train` against calling `diffrax.diffeqsolve` by hand, for the same flow, tolerances and recorded loss.

python benchmarks/train_overhead.py
"""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from _timing import describe_machine, median_seconds

import tractax as tx
from tractax.deep_linear import LinearTask, gaussian


@eqx.filter_jit
def by_hand(weights, sigma, ts):
    """What one would write without tractax."""

    def loss(weights):
        w1, w2 = weights
        return jnp.sum((w2 @ w1 - sigma) ** 2) / 2

    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: jax.tree.map(jnp.negative, jax.grad(loss)(y))),
        diffrax.Tsit5(),
        t0=0.0,
        t1=ts[-1],
        dt0=None,
        y0=weights,
        saveat=diffrax.SaveAt(subs=[diffrax.SubSaveAt(ts=ts, fn=lambda t, y, args: loss(y)), diffrax.SubSaveAt(t1=True)]),
        stepsize_controller=diffrax.PIDController(rtol=1e-8, atol=1e-12),
        max_steps=2**17,
    )
    return solution.ys


def main():
    """Prints the table."""
    jax.config.update("jax_enable_x64", True)
    print(f"{describe_machine()}; random small weights, 100 recorded losses, Tsit5 at rtol 1e-8\n")
    print("| network | by hand | tx.train | ratio |\n|---|---|---|---|")
    for size in (8, 32, 64, 128):
        sigma = jax.random.normal(jax.random.key(0), (size, size)) / size**0.5
        model = gaussian((size, size, size), scale=0.1 / size**0.5, key=jax.random.key(1))
        task, rule, ts = LinearTask(sigma), tx.GradientFlow(), jnp.linspace(0.0, 30.0, 100)
        seconds = median_seconds(
            {
                "hand": lambda: by_hand(model.weights, sigma, ts),  # noqa: B023
                "train": lambda: tx.train(model, task, rule, ts).observed,  # noqa: B023
            },
            repeats=15,
        )
        hand, train = seconds["hand"], seconds["train"]
        print(f"| {size}-{size}-{size} | {1e3 * hand:.2f} ms | {1e3 * train:.2f} ms | {train / hand:.3f} |")


if __name__ == "__main__":
    main()

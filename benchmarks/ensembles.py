"""`tx.ensemble` against `jax.vmap(diffeqsolve)` by hand: d-d-d linear networks, the same solver, tolerances and saves.

python benchmarks/ensembles.py              table, on whatever device there is
python benchmarks/ensembles.py --memory     peak memory against the number of members, kept and reduced
python benchmarks/ensembles.py --float32    in float32
"""

import argparse
import logging
import subprocess
import sys

import diffrax
import jax
import jax.numpy as jnp
from _timing import describe_machine, median_seconds

import tractax as tx
from tractax.deep_linear import DeepLinear, LinearTask

SAVES, HORIZON = 100, 20.0


def case(size, dtype, spread=1.0):
    """One function of a member by tractax, one by hand."""
    target = jax.random.normal(jax.random.key(0), (size, size), dtype) / size**0.5
    ts = jnp.linspace(0.0, HORIZON, SAVES).astype(dtype)
    controller = (
        diffrax.PIDController(rtol=1e-6, atol=1e-9) if dtype == jnp.float64 else diffrax.PIDController(1e-4, 1e-6)
    )
    solver = diffrax.Tsit5()

    def start(key):
        first, second, rate = jax.random.split(key, 3)
        scale = 0.1 / size**0.5
        weights = tuple(scale * jax.random.normal(k, (size, size), dtype) for k in (first, second))
        return weights, spread ** jax.random.uniform(rate, (), dtype)

    def by_tractax(key):
        weights, rate = start(key)
        rule = tx.GradientFlow(time_constant=1 / rate)
        return tx.train(
            DeepLinear(weights), LinearTask(target), rule, ts, solver=solver, stepsize_controller=controller
        ).observed

    def by_hand(key):
        weights, rate = start(key)

        def loss(weights):
            return jnp.sum((weights[1] @ weights[0] - target) ** 2) / 2

        def field(t, y, args):
            return jax.tree.map(lambda g: -rate * g, jax.grad(loss)(y))

        return diffrax.diffeqsolve(
            diffrax.ODETerm(field),
            solver,
            t0=0.0,
            t1=HORIZON,
            dt0=None,
            y0=weights,
            saveat=diffrax.SaveAt(ts=ts, fn=lambda t, y, args: loss(y)),
            stepsize_controller=controller,
            max_steps=2**17,
            throw=False,
        ).ys

    return by_tractax, jax.jit(jax.vmap(by_hand))


def table(dtype):
    """Milliseconds for one network."""
    print(f"\n{describe_machine()}; {jnp.dtype(dtype).name}, {SAVES} recorded losses\n")
    print("| network | members | time scales | vmap(diffeqsolve) | tx.ensemble | ratio | method |")
    print("|---|---|---|---|---|---|---|")
    on_cpu = jax.devices()[0].platform == "cpu"
    if on_cpu:
        cases = [(4, 1024), (8, 1024), (16, 256), (32, 64), (64, 32), (128, 8), (256, 4)]
    else:
        cases = [(size, members) for size in (8, 32, 128) for members in (100, 1000, 10_000, 100_000)]
    for spread in (1.0, 100.0):
        for size, members in cases:
            if size**2 * members > 2e8 or (spread > 1 and size > 64):
                continue
            if spread > 1 and on_cpu:
                # By hand, every member takes as many steps as the slowest.
                members = members // 8
            keys = jax.random.split(jax.random.key(1), members)
            ours, by_hand = case(size, dtype, spread)
            with _Listening() as heard:
                assert jnp.allclose(tx.ensemble(ours, keys), by_hand(keys), rtol=1e-3, atol=1e-3)
            seconds = median_seconds(
                {"hand": lambda: by_hand(keys), "ours": lambda: tx.ensemble(ours, keys)},  # noqa: B023
                repeats=5,
            )
            hand, mine = (1e3 * seconds[name] / members for name in ("hand", "ours"))
            print(
                f"| {size}-{size}-{size} | {members} | {'equal' if spread == 1 else '100-fold'} "
                f"| {hand:.3f} ms | {mine:.3f} ms | {hand / mine:.2f} | {heard.method} |",
                flush=True,
            )


class _Listening(logging.Handler):
    """Which method the log speaks of."""

    def __enter__(self):
        self.method, logger = "", logging.getLogger("tractax")
        logger.addHandler(self)
        logger.setLevel(logging.INFO)
        return self

    def __exit__(self, *_):
        logging.getLogger("tractax").removeHandler(self)

    def emit(self, record):
        self.method = record.getMessage().partition("method ")[2].partition(",")[0]


def memory():
    """Peak resident memory of a fresh process for a growing number of members."""
    code = """
import resource, sys
import jax
jax.config.update("jax_enable_x64", True)
import tractax as tx
sys.path.insert(0, "benchmarks")
from ensembles import case
ours, _ = case(8, jax.numpy.float64)
reduce = tx.Mean() if sys.argv[2] == "reduced" else None
tx.ensemble(ours, jax.random.split(jax.random.key(0), int(sys.argv[1])), reduce=reduce)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
    print("\n| members of 8-8-8 | kept | reduced to the mean |\n|---|---|---|")
    for members in (1_000, 10_000, 50_000):
        peaks = [
            subprocess.run(
                [sys.executable, "-c", code, str(members), how], capture_output=True, text=True, check=True
            ).stdout
            for how in ("kept", "reduced")
        ]
        print(f"| {members} | {peaks[0].strip()} MB | {peaks[1].strip()} MB |", flush=True)


def main():
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--float32", action="store_true")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", not options.float32)
    if options.memory:
        memory()
    else:
        table(jnp.float32 if options.float32 else jnp.float64)


if __name__ == "__main__":
    main()

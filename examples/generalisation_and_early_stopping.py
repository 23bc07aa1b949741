"""Generalisation dynamics of linear regression, after Advani and Saxe 2017 (arXiv 1710.03667).

A shallow network learns a noisy linear teacher from P examples of N inputs. Trained for long, it generalises worst where
P = N, and then the worse the longer; stopped in time it does almost as well as with the best weight decay. Theory (lines)
is the limit N, P → ∞ at fixed P/N; markers are trained networks.

    python examples/generalisation_and_early_stopping.py [figure.png]
"""

import argparse

import diffrax
import jax
import jax.numpy as jnp

import tractax as tx
from tractax import plotting
from tractax.deep_linear import DeepLinear, HighDimRegression, TeacherRegression, marchenko_pastur

NOISE = 0.2
LATE = 300.0


def train(loads: jax.Array, ts: jax.Array, *, n_in: int, runs: int) -> tuple[jax.Array, jax.Array]:
    """The generalisation error of networks trained from zero, without and with the best decay; mean over data sets."""
    most = round(float(loads.max()) * n_in)

    def one(member):
        load, weight_decay, key = member
        task = TeacherRegression.draw(n_in, most, noise_scale=NOISE**0.5, key=key)
        # Examples beyond the load are set to zero and so do not pull: one compiled program serves all loads.
        given = jnp.where(jnp.arange(most, dtype=load.dtype) < load * n_in, 1.0, 0.0)
        task = TeacherRegression(task.inputs * given[None, :], task.targets * given, task.teacher, task.noise_variance)

        def error(model):
            return task.generalisation_error(model.product[0])

        model, rule = DeepLinear((jnp.zeros((1, n_in)),)), tx.GradientFlow(weight_decay=weight_decay)
        accuracy = diffrax.PIDController(rtol=1e-5, atol=1e-6)
        return tx.train(model, task, rule, ts, observe=error, stepsize_controller=accuracy).observed

    # The teacher has unit variance, so the best decay is the noise variance.
    each_load, each_decay = jnp.meshgrid(loads, jnp.asarray([0.0, NOISE]))
    keys = jax.random.split(jax.random.key(0), 2 * loads.size * runs)
    members = (jnp.repeat(each_load.ravel(), runs), jnp.repeat(each_decay.ravel(), runs), keys)
    without, best = tx.ensemble(one, members).reshape(2, loads.size, runs, ts.size).mean(axis=2)
    return without, best


@jax.jit
@jax.vmap
def strategies(load: jax.Array) -> dict[str, jax.Array]:
    """The generalisation error that theory predicts for three ways to train, and when to stop."""
    solution = HighDimRegression(marchenko_pastur(load), noise_variance=NOISE)
    stop = solution.optimal_stopping_time()
    ridge = solution.with_weight_decay(solution.optimal_weight_decay())
    return {
        "load": load,
        "late": solution.evaluate(LATE).generalisation,
        "stopped": solution.evaluate(stop).generalisation,
        "ridge": ridge.limit().generalisation,
        "stopping time": stop,
    }


def main(path: str | None = None, *, quick: bool = False) -> dict[str, jax.Array]:
    """Compares theory and trained networks; saves a figure if given a path.

    **Arguments:**

    - `path`: where to save the figure, if anywhere.
    - `quick`: smaller networks and fewer of them.

    **Returns:**

    By name, for the loads that were simulated: what theory predicts for long training, training stopped in time and the
    best weight decay, the best stopping time, and what the networks did (`"simulated late"`, `"simulated stopped"`,
    `"simulated ridge"`).
    """
    n_in, runs = (40, 20) if quick else (100, 50)
    loads = jnp.asarray([0.5, 1.0, 2.0])
    numbers = dict(strategies(loads))
    ts = jnp.logspace(-1, jnp.log10(LATE), 40)
    curves, decayed = train(loads, ts, n_in=n_in, runs=runs)
    stopped = [jnp.interp(t, ts, curve) for t, curve in zip(numbers["stopping time"], curves, strict=True)]
    numbers |= {
        "simulated late": curves[:, -1],
        "simulated stopped": jnp.stack(stopped),
        "simulated ridge": decayed[:, -1],
    }
    if path is not None:
        draw(path, ts, curves, numbers)
    return numbers


def draw(path: str, ts: jax.Array, curves: jax.Array, numbers: dict[str, jax.Array]) -> None:
    """Errors over time, and over loads."""

    def course(load):
        return jax.vmap(HighDimRegression(marchenko_pastur(load), noise_variance=NOISE).evaluate)(ts).generalisation

    figure = plotting.new_figure()
    left, right = figure.subplots(1, 2)
    loads = numbers["load"]
    plotting.overlay(left, ts, jax.vmap(course, out_axes=1)(loads), curves.T, [f"$P/N$ = {load:.1f}" for load in loads])
    left.set(xlabel="time $t/\\tau$", ylabel="generalisation error", xscale="log", ylim=(0, 3), title="Overtraining")
    grid = strategies(jnp.linspace(0.05, 3.0, 119))
    shown = (("late", "trained long", "0.2"), ("stopped", "stopped in time", "C0"), ("ridge", "best weight decay", "C1"))
    for name, label, colour in shown:
        right.plot(grid["load"], grid[name], color=colour, ls="--" if name == "ridge" else "-", label=label)
        right.plot(loads, numbers[f"simulated {name}"], "o", color=colour, mfc="white", ms=5)
    right.set(xlabel="load $P/N$", ylabel="generalisation error", ylim=(0, 3), title="What to do about it")
    right.legend(fontsize=8)
    plotting.save(figure, path)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description="Generalisation dynamics of linear regression.")
    parser.add_argument("path", nargs="?", help="where to save the figure")
    for name, values in main(parser.parse_args().path).items():
        print(f"{name:18}", *(f"{value:8.4f}" for value in values))

"""A closed form at 1,000 times against simulating the same 64-64-64 network to the same accuracy.

Both return the strengths of all 64 modes at all times. Accuracy is the largest error of any mode at any time, relative
to the strongest mode; the simulation is given the loosest tolerance that reaches 1e-10.

    python benchmarks/closed_form.py
"""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from _timing import describe_machine, median_seconds

import tractax as tx
from tractax.deep_linear import LambdaBalancedRiccati, LinearTask, TwoLayerModes, aligned, balanced

SIZE, TIMES, TARGET = 64, 1000, 1e-10


@eqx.filter_jit
def evaluate(solution, read, ts):
    """Mode strengths from theory."""
    return jax.vmap(lambda t: read(solution.product(t)))(ts)


class Read(eqx.Module):
    """The strengths of a task's modes."""

    u: jax.Array
    v: jax.Array

    def __call__(self, x):
        product = x.product if isinstance(x, tx.deep_linear.DeepLinear) else x
        return jnp.sum(self.u * (product @ self.v), axis=0)


def simulate(model, task, read, ts, rtol):
    """Mode strengths from gradient flow."""
    return tx.train(
        model,
        task,
        tx.GradientFlow(),
        ts,
        observe=read,
        solver=diffrax.Dopri8(),
        stepsize_controller=diffrax.PIDController(rtol=rtol, atol=rtol * 1e-4),
    )


def compare(name, solution, model, task, read, ts):
    """One row of the table."""
    theory = evaluate(solution, read, ts)
    for digits in range(6, 15):
        run = simulate(model, task, read, ts, 10.0**-digits)
        error = float(jnp.max(jnp.abs(run.observed - theory)) / jnp.max(jnp.abs(theory)))
        if error <= TARGET:
            break
    seconds = median_seconds(
        {
            "theory": lambda: evaluate(solution, read, ts),
            "simulation": lambda: simulate(model, task, read, ts, 10.0**-digits).observed,
            "one": lambda: evaluate(solution, read, jnp.ones(1)),
            "late": lambda: evaluate(solution, read, jnp.full(1, 1e6)),
        }
    )
    print(
        f"| {name} | {1e3 * seconds['theory']:.2f} ms | {1e3 * seconds['simulation']:.0f} ms "
        f"({int(run.stats['num_steps'])} steps, error {error:.0e}) | {seconds['simulation'] / seconds['theory']:.0f} | "
        f"{1e3 * seconds['one']:.2f} ms | {1e3 * seconds['late']:.2f} ms |"
    )


def main():
    """Prints the table."""
    jax.config.update("jax_enable_x64", True)
    keys = jax.random.split(jax.random.key(0), 3)
    u, v = (tx.deep_linear.haar(key, SIZE, SIZE, jnp.float64) for key in keys[:2])
    for spread, s in (
        ("s from 0.1 to 1", jnp.linspace(1.0, 0.1, SIZE)),
        ("s from 0.01 to 1", jnp.geomspace(1.0, 0.01, SIZE)),
    ):
        task = LinearTask((u * s[None, :]) @ v.T)
        read = Read(u, v)
        ts = jnp.linspace(0.0, 8.0 / float(s[-1]), TIMES)
        print(f"\n{describe_machine()}; {SIZE}-{SIZE}-{SIZE}, {spread}, {TIMES} times up to t = {float(ts[-1]):.0f}\n")
        print("| | theory, all times | simulation to 1e-10 | ratio | theory, t = 1 | theory, t = 1e6 |")
        print("|---|---|---|---|---|---|")
        model = aligned(task, (SIZE,), strength=1e-4, key=keys[2])
        compare("TwoLayerModes", TwoLayerModes.from_model(model, task), model, task, read, ts)
        model = _on_no_way_to_a_saddle(task, keys[2])
        compare("LambdaBalancedRiccati", LambdaBalancedRiccati.from_model(model, task), model, task, read, ts)


def _on_no_way_to_a_saddle(task, key):
    """Random balanced weights whose product has the determinant's sign of the task."""
    model = balanced((SIZE, SIZE, SIZE), scale=1e-2, key=key)
    wrong = jnp.linalg.slogdet(model.product)[0] != jnp.linalg.slogdet(task.optimum)[0]
    flip = jnp.ones(SIZE).at[0].set(jnp.where(wrong, -1.0, 1.0))
    return eqx.tree_at(lambda m: m.weights, model, (model.weights[0], flip[:, None] * model.weights[1]))


if __name__ == "__main__":
    main()

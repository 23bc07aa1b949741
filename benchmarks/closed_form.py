"""A closed form at 1,000 times against simulating the same 64-64-64 network to the same accuracy.

Both return the state that the theory predicts, at all times: the strengths of 64 modes in both layers for TwoLayerModes,
three 64 x 64 matrices for LambdaBalancedRiccati. The simulation is given the loosest tolerance (a power of ten) at which
the two agree to 1e-11.

    python benchmarks/closed_form.py
"""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from _timing import describe_machine, median_seconds

import tractax as tx
from tractax.deep_linear import LambdaBalancedRiccati, LinearTask, TwoLayerModes, aligned, balanced

SIZE, TIMES, TARGET = 64, 1000, 1e-11


@eqx.filter_jit
def evaluate(solution, ts):
    """The state from theory, at all times."""
    return jax.vmap(solution.evaluate)(ts)


def simulate(solution, model, task, ts, solver, rtol):
    """The same state from gradient flow."""
    controller = diffrax.PIDController(rtol=rtol, atol=rtol * 1e-4)
    rule = tx.GradientFlow()
    return tx.train(model, task, rule, ts, observe=solution.reduce, solver=solver, stepsize_controller=controller)


def report(name, solution, model, task, ts):
    """Rows of the table, one for each integrator."""
    one, late = jnp.ones(1), jnp.full(1, 1e6)
    for solver in (diffrax.Tsit5(), diffrax.Dopri8()):
        for digits in range(8, 15):
            run = simulate(solution, model, task, ts, solver, 10.0**-digits)
            error = float(tx.compare(solution, run).worst)
            if error <= TARGET:
                break
        rtol = 10.0**-digits
        seconds = median_seconds(
            {
                "theory": lambda: evaluate(solution, ts),
                "simulation": lambda: simulate(solution, model, task, ts, solver, rtol).observed,  # noqa: B023
                "one": lambda: evaluate(solution, one),
                "late": lambda: evaluate(solution, late),
            },
            repeats=5,
        )
        ratio = seconds["simulation"] / seconds["theory"]
        theory, simulation, one_time, late_time = (f"{1e3 * value:.2f} ms" for value in seconds.values())
        how = f"{type(solver).__name__}, {int(run.stats['num_steps'])} steps, error {error:.0e}"
        print(f"| {name} | {theory} | {simulation} ({how}) | {ratio:.0f} | {one_time} | {late_time} |")


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
        ts = jnp.linspace(0.0, 8.0 / float(s[-1]), TIMES)
        print(f"\n{describe_machine()}; {SIZE}-{SIZE}-{SIZE}, {spread}, {TIMES} times up to t = {float(ts[-1]):.0f}\n")
        print("| | theory, all times | simulation to 1e-11 | ratio | theory, t = 1 | theory, t = 1e6 |")
        print("|---|---|---|---|---|---|")
        model = aligned(task, (SIZE,), strength=1e-4, key=keys[2])
        report("TwoLayerModes", TwoLayerModes.from_model(model, task), model, task, ts)
        model = _on_no_way_to_a_saddle(task, keys[2])
        report("LambdaBalancedRiccati", LambdaBalancedRiccati.from_model(model, task), model, task, ts)


def _on_no_way_to_a_saddle(task, key):
    """Random balanced weights whose product has the determinant's sign of the task."""
    model = balanced((SIZE, SIZE, SIZE), scale=1e-2, key=key)
    wrong = jnp.linalg.slogdet(model.product)[0] != jnp.linalg.slogdet(task.optimum)[0]
    flip = jnp.ones(SIZE).at[0].set(jnp.where(wrong, -1.0, 1.0))
    return eqx.tree_at(lambda m: m.weights, model, (model.weights[0], flip[:, None] * model.weights[1]))


if __name__ == "__main__":
    main()

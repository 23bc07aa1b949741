"""Gradients and seconds against true error, for stiff and non-stiff gradient flows.

A Hessian-vector product counts as two gradients, a dense Jacobian as two for each parameter, rejected steps in full. The
error is that of all parameters at the end, relative, against Dopri8 at rtol 1e-13 (RKC4 at 1e-12 for the stiffest
problems, where Dopri8 would take minutes). What a solver needs for the same error is read off between its points.

    python benchmarks/work_precision.py                     all problems, their tables
    python benchmarks/work_precision.py --plot FILE.png     and a figure of all
    python benchmarks/work_precision.py --only NAME …       some: S(1e2), S(1e4), "S(1e4) t=20", S(1e6), digits, …
    python benchmarks/work_precision.py --implicit          Kvaerno5 as well, dense and matrix-free; takes long
    python benchmarks/work_precision.py --json FILE.json    keeps the rows; a file that is there is read and added to
"""

import argparse
import json
import math
import pathlib
import time

import diffrax
import jax
import jax.numpy as jnp
import lineax
import numpy as np
import optimistix
from _timing import describe_machine

import tractax as tx
from tractax import plotting
from tractax.prediction import load_digits

TOLERANCES = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9)
ERRORS = (1e-4, 1e-6, 1e-8)


def spectrum(kappa, t1=None):
    """S(kappa): a 24-24-4 linear network on inputs whose variances fall from 100 by a factor kappa."""
    variances = 100 * jnp.logspace(0, -jnp.log10(kappa), 24)
    keys = jax.random.split(jax.random.key(0), 3)
    target = jax.random.normal(keys[0], (4, 24))
    weights = tuple(0.3 / 24**0.5 * jax.random.normal(k, s) for k, s in zip(keys[1:], ((24, 24), (4, 24)), strict=True))

    def loss(weights):
        return jnp.sum(variances[None, :] * (weights[1] @ weights[0] - target) ** 2) / 2

    return loss, weights, 6 / float(variances[-1]) if t1 is None else t1


def digits():
    """A deep linear network on the handwritten digits, not whitened."""
    data = load_digits()
    task = tx.deep_linear.LinearTask.from_data(data.inputs, data.targets, whiten_inputs=False)
    model = tx.deep_linear.gaussian((task.optimum.shape[1], 16, task.optimum.shape[0]), scale=0.05, key=jax.random.key(0))
    return lambda weights: task.loss(tx.deep_linear.DeepLinear(weights)), model.weights, 200.0


def tanh_network():
    """Twenty hidden units fit a smooth function of two inputs."""
    keys = jax.random.split(jax.random.key(0), 3)
    inputs = jax.random.normal(keys[0], (64, 2))
    targets = jnp.sin(2 * inputs[:, 0]) * inputs[:, 1]
    weights = (jax.random.normal(keys[1], (20, 2)), 0.3 * jax.random.normal(keys[2], (20,)))
    return lambda w: jnp.mean((jnp.tanh(inputs @ w[0].T) @ w[1] - targets) ** 2) / 2, weights, 200.0


def saddles():
    """From one saddle to the next, starting at weights of 1e-6."""
    task = tx.deep_linear.LinearTask(jnp.diag(jnp.asarray([4.0, 2.0, 1.0])))
    model = tx.deep_linear.gaussian((3, 3, 3), scale=1e-6, key=jax.random.key(0))
    return lambda weights: task.loss(tx.deep_linear.DeepLinear(weights)), model.weights, 40.0


def gradient_flow(loss, count=None, dense=None):
    """Gradient flow; `count` hears of gradients (1), their products (2) and, with `dense` parameters, whole Jacobians."""

    def velocity(weights):
        return jax.tree.map(jnp.negative, jax.grad(loss)(weights))

    if count is None:
        return diffrax.ODETerm(lambda t, y, args: velocity(y))

    @jax.custom_jvp
    def counted(weights):
        jax.debug.callback(lambda: count(1))
        return velocity(weights)

    def product(weights, direction):
        jax.debug.callback(lambda: count(2))
        return jax.jvp(velocity, (weights,), (direction,))[1]

    @counted.defjvp
    def _(weights, directions):
        if dense is not None:
            jax.debug.callback(lambda: count(2 * dense))
            return jax.jvp(velocity, weights, directions)
        # A linear call is counted whenever it is made, not once where the flow is linearised.
        return velocity(*weights), jax.custom_derivatives.linear_call(product, product, *weights, *directions)

    return diffrax.ODETerm(lambda t, y, args: counted(y))


def run(term, weights, t1, solver, rtol):
    """One integration; only the end is kept."""
    implicit = isinstance(solver, diffrax.AbstractImplicitSolver)
    return diffrax.diffeqsolve(
        term,
        solver,
        t0=0.0,
        t1=t1,
        dt0=None,
        y0=weights,
        stepsize_controller=diffrax.PIDController(rtol=rtol, atol=1e-3 * rtol),
        max_steps=3_000 if implicit else 2_000_000,
        throw=False,
    )


def solve(loss, weights, t1, solver, rtol):
    """Runs once to compile, three times to time, once to count: the end, gradients, seconds, whether it got there."""
    timed = jax.jit(lambda weights: run(gradient_flow(loss), weights, t1, solver, rtol))
    solution = jax.block_until_ready(timed(weights))
    seconds = math.inf
    for _ in range(3):
        start = time.perf_counter()
        jax.block_until_ready(timed(weights).ys)
        seconds = min(seconds, time.perf_counter() - start)
    end = jnp.concatenate([jnp.ravel(x[-1]) for x in jax.tree.leaves(solution.ys)])
    reached = solution.result == diffrax.RESULTS.successful
    stages = {diffrax.Tsit5: 6, diffrax.Dopri8: 13}.get(type(solver))
    if stages is not None:
        return end, stages * int(solution.stats["num_steps"]) + 1, seconds, reached
    counts = []
    dense = end.size if isinstance(getattr(solver, "root_finder", None), diffrax.VeryChord) else None
    flow = gradient_flow(loss, counts.append, dense)
    jax.block_until_ready(jax.jit(lambda weights: run(flow, weights, t1, solver, rtol).ys)(weights))
    jax.effects_barrier()
    return end, sum(counts), seconds, reached


def solvers(implicit):
    """Names and solvers."""
    found = {
        "Tsit5": diffrax.Tsit5(),
        "Dopri8": diffrax.Dopri8(),
        "RKC2": tx.solvers.RKC2(),
        "RKC4": tx.solvers.RKC4(),
        "Automatic": tx.solvers.Automatic(),
    }
    if implicit:
        found["Kvaerno5"] = diffrax.Kvaerno5()
        # VeryChord, the default, keeps the linearised flow from step to step, which JAX allows for matrices only.
        newton = diffrax.with_stepsize_controller_tols(optimistix.Newton)
        found["Kvaerno5, GMRES"] = diffrax.Kvaerno5(root_finder=newton(linear_solver=lineax.GMRES(rtol=1e-6, atol=1e-9)))
    return found


def measure(name, problem, stiff, implicit):
    """Rows of the table for one problem."""
    loss, weights, t1 = problem
    parameters = sum(x.size for x in jax.tree.leaves(weights))
    reference = solve(loss, weights, t1, tx.solvers.RKC4() if stiff else diffrax.Dopri8(), 1e-12 if stiff else 1e-13)[0]
    print(f"\n{name}: {parameters} parameters, up to t = {t1:g}\n")
    print("| solver | rtol | error | gradients | seconds |\n|---|---|---|---|---|")
    rows = []
    for label, solver in solvers(implicit).items():
        classical = label in ("Tsit5", "Dopri8")
        if name == "S(1e6)" and (classical or label.endswith("GMRES")):
            # Some 10⁸ gradients.
            continue
        kept = 3 if label.startswith("Kvaerno5") else 5 if stiff and classical else 7
        for rtol in TOLERANCES[:kept]:
            end, count, seconds, reached = solve(loss, weights, t1, solver, rtol)
            if not reached:
                continue
            error = float(jnp.linalg.norm(end - reference) / jnp.linalg.norm(reference))
            rows.append((label, rtol, error, count, seconds))
            print(f"| {label} | {rtol:.0e} | {error:.1e} | {count} | {seconds:.3f} |", flush=True)
    return rows


def at_equal_errors(rows):
    """Prints what every solver needs for the same error, and how its gradients compare with those of Tsit5."""
    columns = [f"{quantity} at {error:.0e}" for quantity in ("gradients", "seconds") for error in ERRORS]
    print(f"\n| solver | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
    found = {label: [row for row in rows if row[0] == label] for label in dict.fromkeys(row[0] for row in rows)}
    needed = {label: [_between(some, 3, error) for error in ERRORS] for label, some in found.items()}
    tsit5 = needed.get("Tsit5", [None] * len(ERRORS))
    for label, some in found.items():
        cells = []
        for gradients, reference in zip(needed[label], tsit5, strict=True):
            compared = "" if None in (gradients, reference) or label == "Tsit5" else f" ({_times(gradients / reference)})"
            cells.append("" if gradients is None else f"{gradients:,.0f}{compared}")
        seconds = [_between(some, 4, error) for error in ERRORS]
        cells += ["" if x is None else f"{x:.4f}" for x in seconds]
        print(f"| {label} | {' | '.join(cells)} |", flush=True)


def _times(ratio):
    return f"1/{1 / ratio:.3g}" if ratio < 1 else f"{ratio:.3g}×"


def _between(rows, column, error):
    """A quantity at an error, on a straight line between two measured points in logarithms; none outside of them."""
    points = sorted((row[2], row[column]) for row in rows if row[2] > 0)
    if not points or not points[0][0] <= error <= points[-1][0]:
        return None
    return float(np.exp(np.interp(np.log(error), *np.log(points).T)))


def draw(results, path):
    """Gradients and, below, seconds against error: a column for each problem, four to a band."""
    labels = [*solvers(implicit=True)]
    columns, bands = min(len(results), 4), -(-len(results) // 4)
    figure = plotting.new_figure(width=3.2 * columns, height=5.4 * bands)
    panels = figure.subplots(2 * bands, columns, squeeze=False)
    for axes in panels.ravel():
        axes.set_axis_off()
    for k, (name, rows) in enumerate(results.items()):
        band, column = divmod(k, 4)
        for upper, quantity in enumerate(("gradients", "seconds")):
            axes = panels[2 * band + upper, column]
            axes.set_axis_on()
            for i, label in enumerate(labels):
                points = [(row[2], row[3 + upper]) for row in rows if row[0] == label and row[2] > 0]
                if points:
                    axes.plot(*zip(*points, strict=True), "o-", color=f"C{i}", ms=4, label=label)
            axes.set(xscale="log", yscale="log", xlabel="relative error", title="" if upper else name)
            if column == 0:
                axes.set_ylabel(quantity)
    panels[0, 0].legend(fontsize=7)
    plotting.save(figure, path)


def main():
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="NAME")
    parser.add_argument("--implicit", action="store_true", help="Kvaerno5 too, which takes minutes")
    parser.add_argument("--plot", metavar="FILE.png")
    parser.add_argument("--json", metavar="FILE.json", help="rows found so far, read and added to")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    print(describe_machine())
    problems = {
        "S(1e2)": (lambda: spectrum(1e2), False),
        "S(1e4)": (lambda: spectrum(1e4), True),
        "S(1e4) t=20": (lambda: spectrum(1e4, 20.0), False),
        "S(1e6)": (lambda: spectrum(1e6), True),
        "digits": (digits, False),
        "tanh": (tanh_network, False),
        "saddles": (saddles, False),
    }
    unknown = set(options.only or ()) - set(problems)
    if unknown:
        parser.error(f"no such problems: {', '.join(sorted(unknown))}; there are {', '.join(problems)}")
    problems = {name: problem for name, problem in problems.items() if options.only is None or name in options.only}
    kept = pathlib.Path(options.json) if options.json else None
    results = json.loads(kept.read_text()) if kept and kept.exists() else {}
    for name, (problem, stiff) in problems.items():
        results[name] = measure(name, problem(), stiff, options.implicit)
        at_equal_errors(results[name])
        if kept:
            kept.write_text(json.dumps(results, indent=1))
    if options.plot is not None:
        draw(results, options.plot)


if __name__ == "__main__":
    main()

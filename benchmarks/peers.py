"""One gradient flow, many ways: tractax, diffrax by hand, SciPy, torchdiffeq, and descent in JAX and PyTorch.

A two-layer linear network learns from inputs whose variances fall from 10 by a factor kappa; 100 losses are recorded. The
error is the worst of them against DOP853 at rtol 1e-12, relative to the loss at the start. Every method runs at several
tolerances (descent at several learning rates); compilation is shown apart.

    python benchmarks/peers.py                 kappa = 10 and 1,000
    python benchmarks/peers.py --plot FILE     and a figure: seconds against error

PyTorch and torchdiffeq are measured if they are installed.
"""

import argparse
import functools
import importlib.util
import time

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from _timing import describe_machine, median_seconds
from scipy.integrate import solve_ivp

import tractax as tx
from tractax import plotting
from tractax.deep_linear import DeepLinear, LinearTask

SIZES = (32, 32, 8)
TOLERANCES = (1e-3, 1e-5, 1e-7)


def problem(kappa):
    """Variances of the inputs, the map to be learned, first weights, and the recorded times."""
    inputs, hidden, outputs = SIZES
    rng = np.random.default_rng(0)
    variances = 10 * np.logspace(0, -np.log10(kappa), inputs)
    target = rng.normal(size=(outputs, inputs)) / inputs**0.5
    weights = tuple(0.3 / inputs**0.5 * rng.normal(size=shape) for shape in ((hidden, inputs), (outputs, hidden)))
    return variances, target, weights, np.linspace(0.0, 4 / variances[-1], 100)


def gradient(variances, target, first, second):
    """The gradient of the loss, for NumPy."""
    error = (second @ first - target) * variances
    return second.T @ error, error @ first.T


def loss(xp, variances, target, first, second):
    """The loss, for NumPy, JAX and PyTorch alike."""
    return 0.5 * xp.sum(variances * (second @ first - target) ** 2)


def jax_methods(variances, target, weights, ts):
    """Names and functions that return the recorded losses."""
    variances, target, ts = (jnp.asarray(x) for x in (variances, target, ts))
    weights = tuple(jnp.asarray(w) for w in weights)
    task = LinearTask(target * variances[None, :], input_covariance=jnp.diag(variances))

    def of(weights):
        return loss(jnp, variances[None, :], target, *weights)

    @functools.partial(jax.jit, static_argnums=1)
    def by_hand(weights, rtol):
        return diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: jax.tree.map(jnp.negative, jax.grad(of)(y))),
            diffrax.Tsit5(),
            t0=0.0,
            t1=ts[-1],
            dt0=None,
            y0=weights,
            saveat=diffrax.SaveAt(ts=ts, fn=lambda t, y, args: of(y)),
            stepsize_controller=diffrax.PIDController(rtol=rtol, atol=rtol / 100),
            max_steps=None,
        ).ys

    model, rule = DeepLinear(weights), tx.GradientFlow()

    def train(rtol):
        pid = diffrax.PIDController(rtol=rtol, atol=rtol / 100)
        return tx.train(model, task, rule, ts, stepsize_controller=pid).observed

    @jax.jit
    def descend(weights, rate):
        def record(carry, t):
            count, weights = carry

            def step(carry):
                return carry[0] + 1, jax.tree.map(lambda w, g: w - rate * g, carry[1], jax.grad(of)(carry[1]))

            carry = jax.lax.while_loop(lambda carry: carry[0] * rate < t - rate / 2, step, (count, weights))
            return carry, of(carry[1])

        return jax.lax.scan(record, (0, weights), ts)[1]

    rate = 0.1 / float(jnp.max(variances))
    methods = {("tractax", r): functools.partial(train, r) for r in TOLERANCES}
    methods |= {("diffrax by hand, Tsit5", r): functools.partial(by_hand, weights, r) for r in TOLERANCES}
    methods |= {("descent, JAX", h): functools.partial(descend, weights, h) for h in (rate, rate / 10)}
    return methods


def integrate_in_scipy(variances, target, weights, ts, method, rtol):
    """The recorded losses by `solve_ivp`, with the gradient by hand in NumPy."""
    first, second = (w.shape for w in weights)
    split = weights[0].size

    def unpack(y):
        return y[:split].reshape(first), y[split:].reshape(second)

    def velocity(t, y):
        del t
        return -np.concatenate([g.ravel() for g in gradient(variances, target, *unpack(y))])

    start = np.concatenate([w.ravel() for w in weights])
    path = solve_ivp(velocity, (0.0, ts[-1]), start, method, ts, rtol=rtol, atol=rtol / 100)
    return np.asarray([loss(np, variances, target, *unpack(y)) for y in path.y.T])


def scipy_methods(*setting):
    """Names and functions that return the recorded losses."""
    return {
        (f"SciPy {method}", rtol): functools.partial(integrate_in_scipy, *setting, method, rtol)
        for method in ("RK45", "LSODA")
        for rtol in TOLERANCES
    }


def torch_methods(variances, target, weights, ts):
    """Names and functions that return the recorded losses; none where PyTorch is missing."""
    if importlib.util.find_spec("torch") is None:
        return {}
    import torch

    variances, target, ts = (torch.tensor(x) for x in (variances, target, ts))
    weights = tuple(torch.tensor(w) for w in weights)

    def gradients(weights):
        with torch.enable_grad():
            weights = tuple(w.detach().requires_grad_() for w in weights)
            return torch.autograd.grad(loss(torch, variances, target, *weights), weights)

    def descend(rate):
        now, count, found = weights, 0, []
        for t in ts.tolist():
            while count * rate < t - rate / 2:
                now = tuple(w - rate * g for w, g in zip(now, gradients(now), strict=True))
                count += 1
            found.append(loss(torch, variances, target, *now))
        return torch.stack(found).numpy()

    rate = 0.1 / float(variances.max())
    methods = {("descent, PyTorch", rate): functools.partial(descend, rate)}
    if importlib.util.find_spec("torchdiffeq") is None:
        return methods
    import torchdiffeq

    @torch.no_grad()
    def integrate(rtol):
        path = torchdiffeq.odeint(
            lambda t, y: tuple(-g for g in gradients(y)), weights, ts, rtol=rtol, atol=rtol / 100, method="dopri5"
        )
        return torch.stack([loss(torch, variances, target, *both) for both in zip(*path, strict=True)]).numpy()

    return methods | {("torchdiffeq dopri5", r): functools.partial(integrate, r) for r in TOLERANCES}


def measure(kappa):
    """The rows of one table."""
    setting = problem(kappa)
    methods = jax_methods(*setting) | scipy_methods(*setting) | torch_methods(*setting)
    reference = integrate_in_scipy(*setting, "DOP853", 1e-12)
    first, errors = {}, {}
    for name, method in methods.items():
        start = time.perf_counter()
        found = np.asarray(jax.block_until_ready(method()))
        first[name] = time.perf_counter() - start
        errors[name] = np.max(np.abs(found - reference)) / reference[0]
    seconds = median_seconds(methods, repeats=3)
    return [(*name, errors[name], seconds[name], max(0.0, first[name] - seconds[name])) for name in methods]


def draw(tables, path):
    """Seconds against error, a panel for each condition number."""
    figure = plotting.new_figure(width=4.0 * len(tables), height=3.6)
    for axes, (kappa, rows) in zip(figure.subplots(1, len(tables), squeeze=False)[0], tables.items(), strict=True):
        for i, label in enumerate(dict.fromkeys(row[0] for row in rows)):
            points = [(error, seconds) for name, _, error, seconds, _ in rows if name == label]
            axes.plot(*zip(*points, strict=True), "o-", ms=4, color=f"C{i}", label=label)
        axes.set(xscale="log", yscale="log", xlabel="worst error of the loss", ylabel="seconds", title=f"κ = {kappa:g}")
    figure.axes[0].set_ylim(top=3)
    figure.axes[0].legend(fontsize=7, ncols=2, loc="upper center")
    plotting.save(figure, path)


def main():
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plot")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    print(describe_machine())
    tables = {}
    for kappa in (10.0, 1000.0):
        tables[kappa] = measure(kappa)
        print(f"\n{'-'.join(map(str, SIZES))}, kappa = {kappa:g}\n")
        print("| | rtol or learning rate | error | seconds | compilation |\n|---|---|---|---|---|")
        for name, setting, error, seconds, compilation in tables[kappa]:
            print(f"| {name} | {setting:.0e} | {error:.0e} | {seconds:.4f} | {compilation:.2f} |")
    if options.plot is not None:
        draw(tables, options.plot)


if __name__ == "__main__":
    main()

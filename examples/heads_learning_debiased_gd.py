"""Heads of softmax attention learn debiased gradient descent (He, Pan, Chen and Yang 2025, arXiv 2503.12734).

Softmax attention with one, two and four heads, all matrices random at first, is trained on linear regression in context
with Adam on fresh prompts. Whatever it started from, a head ends with W_KQ = ω I between inputs and reads labels with
weight μ. Heads of both signs become one step of gradient descent on centred inputs, far better than one head can be; two
heads that happen to take one sign stay at the level of one. The theory is that of two numbers a head. Run it as

    python examples/heads_learning_debiased_gd.py [heads.png]
"""

import argparse

import jax
import jax.numpy as jnp
import optax

import tractax as tx
from tractax import plotting
from tractax.transformers import (
    DebiasedDescent,
    FixedPrompts,
    InContextRegression,
    SoftmaxAttention,
    SoftmaxHeadsTask,
    gaussian_softmax_attention,
    ridge_risk,
    sampled_heads_risk,
    softmax_heads,
)

INPUTS, LENGTH = 4, 32


def problem() -> InContextRegression:
    """Eight examples for each input, tasks of unit power, a tenth of it in noise."""
    unit = jnp.eye(INPUTS)
    return InContextRegression(unit, LENGTH, task_covariance=unit / INPUTS, noise_variance=0.1)


def far_from_pattern(model: SoftmaxAttention) -> float:
    """How much of the attention matrices is not a multiple of the identity between inputs."""
    pattern = softmax_heads(model).network(model.inputs).key_query
    return float(jnp.linalg.norm(model.key_query - pattern) / jnp.linalg.norm(model.key_query))


def main(path: str | None = None, *, quick: bool = False) -> dict[str, float]:
    """Trains each network and returns its risk on fresh prompts, beside what theory knows of."""
    data, steps = problem(), 60 if quick else 4000
    task, test = SoftmaxHeadsTask(data), FixedPrompts.draw(data, jax.random.key(9), 1000 if quick else 10_000)
    levels = {
        "best single head": sampled_heads_risk(task.best_head, task, key=jax.random.key(8))[0],
        "one step of gradient descent": data.risk_of_map(data.optimum),
        "the same, debiased": DebiasedDescent.best_step(data).risk(data),
        "ridge regression": ridge_risk(data),
    }
    schedule = optax.cosine_decay_schedule(0.01, steps)
    rule = tx.GradientDescent(0.01, optax.adam(schedule), time_per_step=1.0, batch_size=128)
    ts = jnp.unique(jnp.round(jnp.geomspace(1.0, steps, 40)))
    figure = plotting.new_figure(9.0, 3.6)
    left, right = figure.subplots(1, 2)
    risks = {}
    for i, heads in enumerate((1, 4) if quick else (1, 2, 4)):
        model = gaussian_softmax_attention(INPUTS, heads, scale=0.05, key=jax.random.key(heads))
        observe = {"heads": softmax_heads, "loss": test.loss}
        run = tx.train(model, data, rule, ts, observe=observe, key=jax.random.key(0))
        final, curve = softmax_heads(run.model), 2 * run.observed["loss"]
        risks[f"{heads} heads"] = float(curve[-1])
        print(f"{heads} heads: ω = {final.omega.round(3)}, μ = {final.mu.round(3)}, step {float(final.step):.3f}")
        print(f"         risk {float(curve[-1]):.3f}, off the pattern by {far_from_pattern(run.model):.0%}")
        left.plot(run.ts, curve, color=f"C{i}", label=f"{heads} head{'s' if heads > 1 else ''}")
        if heads == 4:
            right.plot(run.ts, run.observed["heads"].omega, color="C0")
            right.plot(run.ts, run.observed["heads"].mu, color="C1", ls="--")
    for (name, level), style in zip(levels.items(), ("-.", (0, (1, 3)), "--", ":"), strict=True):
        print(f"{name}: risk {float(level):.3f}")
        risks[name] = float(level)
        left.axhline(float(level), color="0.4", ls=style, lw=1.2, label=name)
    left.set(xscale="log", yscale="log", xlabel="steps", ylabel="risk", title="Full softmax attention")
    left.legend(fontsize=7, loc="lower left", bbox_to_anchor=(0.0, 0.06))
    right.plot([], [], color="C0", label="$\\omega$")
    right.plot([], [], color="C1", ls="--", label="$\\mu$")
    right.set(xscale="log", xlabel="steps", title="The numbers of four heads")
    right.legend(fontsize=8)
    if path is not None:
        print(plotting.save(figure, path))
    return risks


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("path", nargs="?", default="heads_learning_debiased_gd.png")
    main(parser.parse_args().path)

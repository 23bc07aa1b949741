"""Scan and snap: what a layer of attention learns to look at (Tian, Wang, Chen and Du 2023, arXiv 2305.16380).

Two last tokens, each followed by a next token of its own. Contexts of 128 tokens are drawn from ten tokens that occur
with both, and from ten that occur with one only, from rare to frequent. One layer of softmax attention is trained by SGD
with momentum, decoder and attention at the same rate (left): attention leaves the shared tokens, concentrates on those
that are distinct and frequent, and freezes when the loss has fallen. Plain SGD (right, markers) follows the gradient flow
of long contexts (lines), with exact frequencies of tokens and nearly so with those of 128 tokens; it snaps before as much
attention has moved. Run it as

    python examples/scan_and_snap.py [map.png]
"""

import argparse
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax

import tractax as tx
from tractax import plotting
from tractax.transformers import NextTokenTask, TokenAttention, TokenAttentionFlow

# The next and the last tokens are in the vocabulary too, and never occur in a context.
VOCABULARY, BATCH = 34, 128


def problem(length: float) -> NextTokenTask:
    """Tokens 0 to 9 are shared, 10 to 19 are of the first class, the last ten of the second."""
    return NextTokenTask.symmetric(np.ones(10), np.linspace(0.1, 1.0, 10), 2, length=length)


def masses(maps: jax.Array) -> dict[str, np.ndarray]:
    """What the last token of the first class attends to, over time."""
    first = np.asarray(maps[:, 0])
    return {"all shared": first[:, :10].sum(axis=1), "most frequent own": first[:, 19], "rarest own": first[:, 10]}


def main(path: str | None = None, *, quick: bool = False) -> dict[str, float]:
    """Trains with and without momentum, compares with the flow, and returns the attention at the end."""
    task, key = problem(128), jax.random.key(0)
    model = TokenAttention.zeros(task.tokens, VOCABULARY, 2)
    observe = {"attention": task.attention_map, "loss": task.loss}

    steps = jnp.arange(20.0 if quick else 100.0)
    momentum = functools.partial(optax.sgd, momentum=0.9)
    rule = tx.GradientDescent(1.0, momentum, batch_size=BATCH)
    fast = tx.train(model, task, rule, steps, observe=observe, key=key).observed
    final = masses(fast["attention"])
    for k in (0, 10, int(steps[-1])):
        numbers = ", ".join(f"{name} {mass[k]:.4f}" for name, mass in final.items())
        print(f"momentum, step {k:2}: loss {float(fast['loss'][k]):.1e}, {numbers}")

    ts = jnp.unique(jnp.round(jnp.geomspace(1.0, 30.0 if quick else 600.0, 25)))
    flow = TokenAttentionFlow.from_model(model, task, t1=1.01 * float(ts[-1]))
    fine = jnp.geomspace(1.0, ts[-1], 100)
    theory = masses(jax.vmap(flow.attention_map)(fine))
    slow = {
        length: tx.train(
            model, problem(length), tx.GradientDescent(1.0, batch_size=BATCH), ts, observe=observe, key=key
        ).observed
        for length in (128, math.inf)
    }
    furthest = jnp.max(jnp.abs(slow[math.inf]["attention"] - jax.vmap(flow.attention_map)(ts)))
    print(f"plain SGD with exact frequencies, furthest from the flow: {float(furthest):.3f}")

    figure = plotting.new_figure(9.5, 3.8)
    left, right = figure.subplots(1, 2)
    image = left.imshow(
        np.asarray(fast["attention"][:, 0, :20]).T,
        aspect="auto",
        origin="lower",
        cmap="magma",
        vmin=0.0,
        extent=(0, float(steps[-1]) + 1, -0.5, 19.5),
    )
    left.axhline(9.5, color="white", lw=1, ls=":")
    left.set_yticks([0, 4.5, 10, 19], ["0", "shared", "10: own, rare", "19: frequent"])
    left.set(xlabel="step", title="SGD with momentum")
    figure.colorbar(image, ax=left, label="attention")
    for i, (name, line) in enumerate(theory.items()):
        right.plot(fine, line, color=f"C{i}", label=name)
        for length, marker in ((math.inf, "o"), (128, "x")):
            right.plot(ts, masses(slow[length]["attention"])[name], marker, color=f"C{i}", mfc="white", ms=4)
    right.plot([], [], "o", color="0.3", mfc="white", ms=4, label="exact frequencies")
    right.plot([], [], "x", color="0.3", ms=4, label="128 tokens")
    right.set(
        xlabel="time $t$, steps of plain SGD", ylabel="attention", xscale="log", ylim=(0, 0.9), title="Gradient flow"
    )
    right.legend(fontsize=8, ncols=2, loc="upper right")
    if path is not None:
        print(plotting.save(figure, path))
    return {name: float(mass[-1]) for name, mass in final.items()}


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("path", nargs="?", default="scan_and_snap.png")
    main(parser.parse_args().path)

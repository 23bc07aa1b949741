"""What linear attention learned in context tolerates, and what not (Zhang, Frei and Bartlett 2023, arXiv 2306.09927).

A network is trained on prompts of one distribution, and tested on others: other tasks, other queries, noisy labels,
other inputs. Lines are the exact risk of its effective map, markers the squared error of the trained network on sampled
prompts. Only for other inputs does the risk not fall with the length of the prompt. Training on many covariances does
not help: one map has to serve them all, and what is left of the loss does not vanish either. Run it as

    python examples/covariate_shift.py [shift.png]
"""

import argparse
import math

import jax
import jax.numpy as jnp
import numpy as np

import tractax as tx
from tractax import plotting
from tractax.transformers import InContextRegression, LinearAttentionFlow, balanced_attention, random_covariance_limit

COVARIANCE = np.asarray([[1.2, 0.4, 0.0], [0.4, 0.8, 0.2], [0.0, 0.2, 0.5]])
# What differs from training at test.
SHIFTS = {
    "none": {},
    "tasks": {"task_covariance": np.diag([3.0, 1.0, 0.1])},
    "queries": {"query_covariance": np.diag([0.1, 0.1, 2.0])},
    "noise": {"noise_variance": 1.0},
    "inputs, half": {"covariance": 0.5 * COVARIANCE},
    "inputs, double": {"covariance": 2.0 * COVARIANCE},
}


def shifted(length: float, options: dict) -> InContextRegression:
    """The task at test."""
    return InContextRegression(**({"covariance": COVARIANCE} | options), length=length)


def sampled_risk(model, task: InContextRegression, prompts: int) -> tuple[float, float]:
    """The mean squared error on sampled prompts, relative to that of answering zero, and its standard error."""
    batch, answers = task.sample(jax.random.key(task.length), prompts)
    squares = (jax.vmap(model)(batch) - answers) ** 2
    power = float(task.risk_of_map(jnp.zeros_like(task.optimum)))
    return float(jnp.mean(squares)) / power, float(jnp.std(squares)) / prompts**0.5 / power


def main(path: str | None = None, *, quick: bool = False) -> dict[str, float]:
    """Trains, tests under every shift, and returns the risk that is left after infinitely long prompts."""
    training = InContextRegression(COVARIANCE, length=500)
    model = balanced_attention(3, scale=0.1, key=jax.random.key(0))
    solution = LinearAttentionFlow.from_model(model, training, t1=200.0)
    network = tx.train(model, training, tx.GradientFlow(), [200.0]).model
    effective = solution.limit().effective_map
    print(f"theory against simulation: {float(jnp.max(jnp.abs(network.effective_map - effective))):.1e}")

    lengths, tested, prompts = [2**k for k in range(1, 13, 6 if quick else 1)], [4, 32, 128], 2_000 if quick else 10_000
    figure = plotting.new_figure(9.0, 3.8)
    left, right = figure.subplots(1, 2)
    floors = {}
    for i, (name, options) in enumerate(SHIFTS.items()):
        zero = float(shifted(1, options).risk_of_map(jnp.zeros_like(effective)))
        risks = [float(shifted(m, options).risk_of_map(effective)) / zero for m in lengths]
        floors[name] = float(shifted(math.inf, options).risk_of_map(effective)) / zero
        left.plot(lengths, risks, "--" if name == "tasks" else "-", color=f"C{i}", label=name)
        for m in tested[:1] if quick else tested:
            risk, error = sampled_risk(network, shifted(m, options), prompts)
            left.errorbar(m, risk, 2 * error, fmt="o", color=f"C{i}", mfc="white", ms=4)
        print(f"{name:>15}: risk after infinitely long prompts {floors[name]:.2g} of that of answering zero")
    left.set(xscale="log", yscale="log", xlabel="examples in the prompt", ylabel="risk / risk of zero")
    left.set_title("Trained on one covariance")
    left.legend(fontsize=8, title="what is shifted")

    # Exponential eigenvalues of mean one have the moments 1, 2 and 6; fixed ones 1, 1 and 1.
    for name, moments in (("one covariance", (1.0, 1.0, 1.0)), ("exponential eigenvalues", (1.0, 2.0, 6.0))):
        columns = np.asarray(moments)[:, None] * np.ones((1, 3))
        left_over = [float(random_covariance_limit(columns, n)[1]) / 1.5 for n in lengths]
        right.plot(lengths, left_over, label=name)
    right.set(xscale="log", yscale="log", xlabel="examples in a prompt of training", ylabel="loss / loss of zero")
    right.set_title("Trained on many covariances")
    right.legend(fontsize=8)
    if path is not None:
        print(plotting.save(figure, path))
    return floors


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("path", nargs="?", default="covariate_shift.png")
    main(parser.parse_args().path)

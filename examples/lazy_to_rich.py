"""From lazy to rich learning by one number: λ = W2ᵀW2 − W1W1ᵀ of the initial weights (Dominé et al. 2024, 2409.14623).

For each λ and three shapes, how far the tangent kernel travels during training, from the exact solution (an ensemble of
random tasks and weights), and from simulated gradient flow of a few of the same networks.
"""

import sys

import jax
import jax.numpy as jnp

import tractax as tx
from tractax.deep_linear import LambdaBalancedRiccati, LinearTask, lambda_balanced

SHAPES = ((4, 4, 4), (6, 3, 3), (3, 3, 6))


def network(key, lam, sizes):
    """A random task and λ-balanced weights."""
    task_key, key = jax.random.split(key)
    task = LinearTask(jax.random.normal(task_key, (sizes[2], sizes[0])))
    return task, lambda_balanced(sizes, lam=lam, scale=0.1, key=key)


def distance(first, last, inputs):
    """1 − cosine of the tangent kernels of two states."""
    return 1 - tx.analysis.cosine_similarity(first.tangent_kernel(inputs), last.tangent_kernel(inputs))


def predicted(lams, sizes, draws):
    """Mean kernel distance for each λ, from theory."""

    def one(member):
        lam, key = member
        task, model = network(key, lam, sizes)
        solution = LambdaBalancedRiccati.from_model(model, task, check=False)
        return distance(solution.evaluate(0.0), solution.evaluate(30.0), jnp.eye(sizes[0]))

    keys = jax.random.split(jax.random.key(0), draws)
    members = (jnp.repeat(lams, draws), jnp.tile(keys, lams.size))
    return tx.ensemble(one, members, chunk_size=512).reshape(lams.size, draws)


def simulated(lams, sizes, draws):
    """Kernel distance of the first draws for each λ, from gradient flow."""

    def one(member):
        lam, key = member
        task, model = network(key, lam, sizes)
        solution = LambdaBalancedRiccati.from_model(model, task, check=False)
        ts = jnp.asarray([0.0, 30.0])
        states = tx.train(model, task, tx.GradientFlow(), ts, observe=solution.reduce).observed
        first, last = jax.tree.map(lambda x: x[0], states), jax.tree.map(lambda x: x[1], states)
        return distance(first, last, jnp.eye(sizes[0]))

    keys = jax.random.split(jax.random.key(0), draws)
    members = (jnp.repeat(lams, draws), jnp.tile(keys, lams.size))
    return tx.ensemble(one, members).reshape(lams.size, draws)


def main(path: str | None = None, *, quick: bool = False) -> dict[tuple[int, ...], jax.Array]:
    """Returns the mean predicted kernel distance over λ for each shape; draws them if a path is given."""
    lams = jnp.linspace(-10.0, 10.0, 5 if quick else 41)
    few = lams[:: max(1, lams.size // 5)]
    shapes = SHAPES[1:2] if quick else SHAPES
    draws, checked = (16, 2) if quick else (300, 4)
    means, worst = {}, 0.0
    figure = None
    if path is not None:
        from tractax import plotting

        figure = plotting.new_figure(5.5, 3.8)
        axes = figure.subplots()
        axes.set(xlabel="$\\lambda$", ylabel="kernel distance, start to end", title="Lazy and rich, by λ and shape")
    for sizes in shapes:
        theory = predicted(lams, sizes, draws)
        check = simulated(few, sizes, checked)
        same = predicted(few, sizes, checked)
        worst = max(worst, float(jnp.max(jnp.abs(same - check))))
        means[sizes] = jnp.mean(theory, axis=1)
        if figure is not None:
            (line,) = axes.plot(lams, means[sizes], label="-".join(map(str, sizes)))
            axes.plot(jnp.repeat(few, checked), check.ravel(), ".", color=line.get_color(), alpha=0.5)
            axes.plot(jnp.repeat(few, checked), same.ravel(), "o", mfc="none", color=line.get_color(), alpha=0.5)
    print(f"largest difference between theory and simulation of the same network: {worst:.1e}")
    if figure is not None:
        axes.legend(title="in-hidden-out; ring: theory, dot: simulation", fontsize=8, title_fontsize=7)
        print(plotting.save(figure, path))
    return means


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    main(sys.argv[1] if len(sys.argv) > 1 else "lazy_to_rich.png")

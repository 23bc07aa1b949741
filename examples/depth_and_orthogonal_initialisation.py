"""Very deep linear networks can learn as fast as shallow ones, from orthogonal weights (Saxe et al. 2013, 1312.6120).

Left: steps of gradient descent that one mode needs, against depth, with the learning rate a fixed fraction of the largest
stable one: it levels off at a finite number, as theory says. Right: networks of many units and layers on the same task,
from orthogonal and from Gaussian weights with the same mean squared singular value.
"""

import sys

import jax
import jax.numpy as jnp

import tractax as tx
from tractax.deep_linear import DeepLinear, LinearTask, gaussian, infinite_depth_time, learning_time, orthogonal

SIGNAL, START, END, FRACTION = 1.0, 0.3, 0.95, 0.02


def steps_by_descent(depth):
    """Steps of gradient descent from START to END for one unit per layer."""
    task = LinearTask(jnp.asarray([[SIGNAL]]))
    model = DeepLinear((jnp.full((1, 1), START ** (1 / depth)),) * depth)
    rate = FRACTION / (depth * SIGNAL**2)
    steps = jnp.arange(1.0, 400.0)
    maps = tx.train(model, task, tx.GradientDescent(rate), steps * rate, observe=lambda m: m.product[0, 0]).observed
    return int(jnp.argmax(maps >= END)) + 1


def steps_by_theory(depth):
    """The same from gradient flow: the learning time in units of the learning rate."""
    return float(learning_time(START, END, SIGNAL, depth)) * depth * SIGNAL**2 / FRACTION


def losses(initial, task, rate, steps):
    """The loss over gradient descent, relative to its start."""
    loss = tx.train(initial, task, tx.GradientDescent(rate), steps * rate, throw=False).observed
    return loss / loss[0]


def main(path: str | None = None, *, quick: bool = False) -> dict[str, object]:
    """Returns steps by descent and by theory for each depth, and the final losses; draws them if a path is given."""
    depths = (2, 4, 8) if quick else (2, 4, 8, 16, 32, 64, 128)
    simulated = [steps_by_descent(depth) for depth in depths]
    predicted = [steps_by_theory(depth) for depth in depths]
    limit = float(infinite_depth_time(START, END, SIGNAL)) * SIGNAL**2 / FRACTION
    for depth, counted, expected in zip(depths, simulated, predicted, strict=True):
        print(f"depth {depth:4d}: {counted} steps, flow predicts {expected:.1f}")
    print(f"depth → ∞: {limit:.1f} steps")

    size, depth = (12, 10) if quick else (40, 30)
    keys = jax.random.split(jax.random.key(0), 3)
    # A rotation by moderate angles: as far from every orthogonal start as from any other.
    task = LinearTask(tx.deep_linear.haar(keys[0], size, size, jnp.result_type(float)))
    steps = jnp.arange(0.0, 101.0 if quick else 401.0)
    sizes = (size,) * (depth + 1)
    curves = {
        "orthogonal": losses(orthogonal(sizes, key=keys[1]), task, 0.2 / depth, steps),
        "Gaussian": losses(gaussian(sizes, scale=size**-0.5, key=keys[2]), task, 0.02 / depth, steps),
    }
    for name, curve in curves.items():
        print(f"{depth} {name} layers: loss falls to {float(curve[-1]):.2e} of its start")
    if path is not None:
        from tractax import plotting

        figure = plotting.new_figure()
        left, right = figure.subplots(1, 2)
        left.semilogx(depths, predicted, color="C0", label="theory: gradient flow")
        left.semilogx(depths, simulated, "o", mfc="white", color="C0", label="gradient descent")
        left.axhline(limit, color="0.6", ls=":", label="theory: depth → ∞")
        left.set(xlabel="depth", ylabel="steps", title="Learning time of a mode", ylim=(0, None))
        for name, curve in curves.items():
            right.semilogy(steps, curve, label=name)
        right.set(xlabel="step", ylabel="loss / initial loss", title=f"{depth} layers of {size} units")
        for axes in (left, right):
            axes.legend(fontsize=8, frameon=False)
        print(plotting.save(figure, path))
    final = {name: float(curve[-1]) for name, curve in curves.items()}
    return {"depths": depths, "simulated": simulated, "predicted": predicted, "limit": limit, "losses": final}


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    main(sys.argv[1] if len(sys.argv) > 1 else "depth_and_orthogonal_initialisation.png")

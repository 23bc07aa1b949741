"""Stiff gradient flows, and a short way to integrate them."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np


def solve(solver, field, y0, t1, args=None, rtol=1e-5, atol=1e-8, **options):
    options = {"max_steps": 2000, "dt0": 1e-3} | options
    controller = options.pop("stepsize_controller", diffrax.PIDController(rtol=rtol, atol=atol))
    term = diffrax.ODETerm(field)
    return diffrax.diffeqsolve(term, solver, 0.0, t1, y0=y0, args=args, stepsize_controller=controller, **options)


# Two layers fitted to a matrix whose rows matter very unequally: the standard stiff problem of these tests.


def layers(key, inputs=24, outputs=4):
    scale = 0.3 / np.sqrt(inputs)
    keys = jax.random.split(key, 3)
    target = jax.random.normal(keys[0], (outputs, inputs))
    first = scale * jax.random.normal(keys[1], (inputs, inputs))
    return (first, scale * jax.random.normal(keys[2], (outputs, inputs))), target


def gradient_flow(t, weights, args):
    rates, target = args

    def loss(weights):
        return 0.5 * jnp.sum(rates[None, :] * (weights[1] @ weights[0] - target) ** 2)

    return jax.tree.map(jnp.negative, jax.grad(loss)(weights))


def rates(condition, size=24):
    return 100 * condition ** -jnp.linspace(0, 1, size)


TERM = diffrax.ODETerm(gradient_flow)

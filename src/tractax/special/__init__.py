"""Scalar functions that JAX lacks: stable, differentiable, once each."""

from ._exprel import exprel as exprel

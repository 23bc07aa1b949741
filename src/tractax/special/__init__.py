"""Scalar functions that JAX lacks: stable, differentiable, once each."""

from ._decay_integral import decay_integral as decay_integral
from ._exprel import exprel as exprel
from ._monotone_inverse import monotone_inverse as monotone_inverse

"""Scalar functions that JAX lacks: stable, differentiable, once each."""

from ._balanced_bernoulli import balanced_bernoulli as balanced_bernoulli
from ._carlson_rf import carlson_rf as carlson_rf
from ._circle_angle import circle_angle as circle_angle
from ._cosh_integral import cosh_integral as cosh_integral
from ._damped_oscillation import damped_oscillation as damped_oscillation
from ._decay_integral import decay_integral as decay_integral
from ._exprel import exprel as exprel
from ._geometric import geometric as geometric
from ._logistic import logistic as logistic
from ._monotone_inverse import monotone_inverse as monotone_inverse
from ._normalised_bessel import normalised_bessel as normalised_bessel
from ._quintic_escape import quintic_escape as quintic_escape
from ._safe_sqrt import safe_sqrt as safe_sqrt
from ._sinh_root import sinh_root as sinh_root
from ._softplus_lambert import softplus_lambert as softplus_lambert
from ._stablemax import log_stablemax as log_stablemax
from ._stablemax import stablemax as stablemax
from ._talbot import talbot as talbot
from ._weierstrass_root import weierstrass_half_period as weierstrass_half_period
from ._weierstrass_root import weierstrass_root as weierstrass_root
from ._weierstrass_root import weierstrass_root_inverse as weierstrass_root_inverse
from ._wright_omega import wright_omega as wright_omega

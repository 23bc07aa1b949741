"""A stabilised method of order four, the script that computes its coefficients, and the table that it writes."""

from ._solver import RKC4 as RKC4

"""Simulation: one training run (`train`) and many (`ensemble`)."""

from ._ensemble import ensemble as ensemble
from ._reductions import AbstractReduction as AbstractReduction
from ._reductions import Mean as Mean
from ._reductions import Moments as Moments
from ._reductions import Quantiles as Quantiles
from ._train import train as train
from ._xarray import to_xarray as to_xarray

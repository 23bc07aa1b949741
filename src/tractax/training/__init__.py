"""Simulation: one training run (`train`) and many (`ensemble`)."""

from ._ensemble import ensemble as ensemble
from ._train import train as train

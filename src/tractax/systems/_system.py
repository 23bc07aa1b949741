"""One experiment of the literature, with how exact it claims to be."""

import abc
from dataclasses import dataclass
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..analysis import Scaling, compare
from ..core import AbstractFlowRule, Kind, Trajectory
from ..training import train


@dataclass(frozen=True)
class Citation:
    """Where a theory comes from."""

    authors: str
    year: int
    arxiv: str | None = None

    def __str__(self) -> str:
        return f"{self.authors} {self.year}" + (f", arXiv {self.arxiv}" if self.arxiv else "")


@dataclass(frozen=True)
class Tolerance:
    """`measure` returns an error (or the violation of a bound), which is at most `value`."""

    value: float
    quantity: str = "relative error"

    def passes(self, measured: float | Scaling) -> bool:
        """Whether the claim holds; a NaN fails."""
        return float(measured) <= self.value


@dataclass(frozen=True)
class Exponent:
    """`measure` returns a `Scaling`, whose confidence interval contains `value`."""

    value: float
    quantity: str = "exponent of the error"

    def passes(self, measured: float | Scaling) -> bool:
        """Whether the claim holds."""
        return isinstance(measured, Scaling) and measured.contains(self.value)


@dataclass(frozen=True)
class Signature:
    """`measure` returns the size of a qualitative effect, which is at least `value`."""

    value: float
    quantity: str

    def passes(self, measured: float | Scaling) -> bool:
        """Whether the effect is there; a NaN fails."""
        return float(measured) >= self.value


Claim = Tolerance | Exponent | Signature


class AbstractSystem(eqx.Module):
    """A catalogue entry: something that a theory predicts, how to check it, and how to draw it.

    **Attributes** (of the class):

    - `name`: as on the command line, lower case with underscores.
    - `family`: the package that holds the theory, such as `"deep_linear"`.
    - `kind`: `"exact"`, `"asymptotic"`, `"bound"` or `"phenomenon"`.
    - `summary`: one line.
    - `citation`: the source.
    - `claim`: what `measure` must find.
    """

    name: eqx.AbstractClassVar[str]
    family: eqx.AbstractClassVar[str]
    kind: eqx.AbstractClassVar[Kind]
    summary: eqx.AbstractClassVar[str]
    citation: eqx.AbstractClassVar[Citation]
    claim: eqx.AbstractClassVar[Claim]

    @abc.abstractmethod
    def measure(self) -> Float[Array, ""] | float | Scaling:
        """Runs the check, and returns what `claim` speaks of."""

    @abc.abstractmethod
    def draw(self, figure: Any) -> None:
        """Draws the headline figure, theory over simulation, on an empty `matplotlib.figure.Figure`."""


class Run(NamedTuple):
    """A training run and its solution."""

    model: Any
    task: Any
    rule: AbstractFlowRule
    solution: Any
    ts: Float[Array, " times"]

    def simulate(self) -> Trajectory:
        """The run, integrated more tightly than any claim of exactness."""
        double = self.ts.dtype == jnp.float64
        tight = diffrax.PIDController(rtol=1e-10 if double else 1e-6, atol=1e-14 if double else 1e-9)
        return train(
            self.model,
            self.task,
            self.rule,
            self.ts,
            observe=self.solution.reduce,
            solver=diffrax.Dopri8(),
            stepsize_controller=tight,
        )


class AbstractRunSystem(AbstractSystem):
    """A system whose theory is compared with one simulated training run."""

    @abc.abstractmethod
    def run(self) -> Run:
        """The network, task, rule, solution and times."""

    def measure(self) -> Float[Array, ""]:
        """The largest relative error of any observable at any time."""
        run = self.run()
        return compare(run.solution, run.simulate()).worst

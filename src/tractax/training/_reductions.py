"""Statistics over the members of an ensemble that need not keep the members."""

import abc
import functools
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

Partial = tuple[np.ndarray, ...]


class AbstractReduction(abc.ABC):
    """A statistic of one array over members, computed chunk by chunk.

    Chunks are merged in their order, so that the result does not depend on which finished first.

    **Attributes** (of the class):

    - `arrays`: how many arrays a partial result consists of.
    """

    arrays: ClassVar[int]

    @property
    def description(self) -> str:
        """What the statistic depends on."""
        return type(self).__name__

    @abc.abstractmethod
    def partial(self, values: np.ndarray, valid: np.ndarray) -> Partial:
        """What one chunk says: `values` of shape `(members, ...)`, of which those members count that are `valid`."""

    @abc.abstractmethod
    def merge(self, first: Partial, second: Partial) -> Partial:
        """What two chunks say together."""

    @abc.abstractmethod
    def finish(self, partial: Partial) -> Any:
        """The statistic."""


Reduce = AbstractReduction | Mapping[str, AbstractReduction]


class Statistics:
    """One or several reductions, of every array of numbers that a function returns."""

    def __init__(self, reduce: Reduce):
        self._named = isinstance(reduce, Mapping)
        self._reductions = dict(reduce) if isinstance(reduce, Mapping) else {"": reduce}
        for reduction in self._reductions.values():
            if not isinstance(reduction, AbstractReduction):
                raise ValueError(f"`reduce` must be a reduction such as tx.Mean(), or a dictionary; got {reduction!r}.")
        # A list, since the order of partial results is that of the reductions.
        self.description = [[name, reduction.description] for name, reduction in self._reductions.items()]

    def partial(self, leaves: list[np.ndarray]) -> list[np.ndarray]:
        """What one chunk says, as a flat list; integers (result codes, keys, counts) are no numbers."""
        numbers = [x for x in leaves if jnp.issubdtype(x.dtype, jnp.floating)]
        if not numbers:
            return []
        valid = np.all([np.isfinite(x).all(axis=tuple(range(1, x.ndim))) for x in numbers], axis=0)
        return [part for r in self._reductions.values() for x in numbers for part in r.partial(x, valid)]

    def finish(self, shapes: Any, parts: list[list[np.ndarray]]) -> Any:
        """The statistics, in the structure of what the function returns."""
        numbers = eqx.filter(shapes, _is_number)
        leaves, structure = jax.tree.flatten(numbers)
        results, start = {}, 0
        for name, reduction in self._reductions.items():
            found = []
            for _ in leaves:
                stop = start + reduction.arrays
                found.append(reduction.finish(functools.reduce(reduction.merge, [tuple(p[start:stop]) for p in parts])))
                start = stop
            results[name] = jax.tree.unflatten(structure, found)
        return results if self._named else results[""]


def _is_number(x: Any) -> bool:
    return isinstance(x, jax.ShapeDtypeStruct) and jnp.issubdtype(x.dtype, jnp.floating)


class Moments(NamedTuple):
    """The mean over members, and what it is based on.

    **Attributes:**

    - `mean`: the mean; NaN if all members failed.
    - `standard_error`: the standard deviation over members divided by the root of their number; NaN for fewer than two.
    - `count`: how many members there were that had not failed.
    """

    mean: np.ndarray
    standard_error: np.ndarray
    count: int


class Mean(AbstractReduction):
    """The mean over members with its standard error, as `Moments`; chunks merge without cancellation (Chan et al.)."""

    arrays: ClassVar[int] = 3

    def partial(self, values: np.ndarray, valid: np.ndarray) -> Partial:
        """Number, mean and sum of squared deviations."""
        values = values[valid].astype(np.float64)
        count = np.asarray(float(len(values)))
        mean = values.mean(axis=0) if len(values) else np.zeros(values.shape[1:])
        return count, np.asarray(mean), np.asarray(((values - mean) ** 2).sum(axis=0))

    def merge(self, first: Partial, second: Partial) -> Partial:
        """Of both together."""
        (n, mean, squares), (m, other_mean, other_squares) = first, second
        total = n + m
        if total == 0:
            return first
        apart = other_mean - mean
        mean, squares = mean + apart * (m / total), squares + other_squares + apart**2 * (n * m / total)
        return np.asarray(total), np.asarray(mean), np.asarray(squares)

    def finish(self, partial: Partial) -> Moments:
        """Mean and standard error."""
        count, mean, squares = partial
        number = int(count)
        missing = np.full_like(mean, np.nan)
        error = np.sqrt(squares / (number * (number - 1))) if number > 1 else missing
        return Moments(mean if number else missing, np.asarray(error), number)


class Quantiles(AbstractReduction):
    r"""Quantiles over members, each within a relative error of `accuracy` of one that the members have.

    Members are counted in buckets that grow geometrically (as in the DDSketch of Masson, Rim and Lee 2019,
    arXiv 1908.10693). Values below `smallest` in size count as zero; those above `1 / smallest` as the largest.
    Memory: about $8\ln(1/\text{smallest})/\text{accuracy}$ bytes for every number of the output.

    **Arguments:**

    - `q`: one or more levels between 0 and 1.
    - `accuracy`: the relative error.
    - `smallest`: what is told from zero.
    """

    arrays: ClassVar[int] = 2

    @property
    def description(self) -> str:
        """Levels, accuracy and range."""
        return f"Quantiles({self.q.tolist()}, accuracy={self.accuracy}, smallest={self.smallest})"

    def __init__(self, q: Any = (0.25, 0.5, 0.75), *, accuracy: float = 0.01, smallest: float = 1e-15):
        self.q = np.atleast_1d(np.asarray(q, dtype=float))
        if self.q.ndim != 1 or not np.all((self.q >= 0) & (self.q <= 1)):
            raise ValueError(f"`q` must hold levels between 0 and 1; got {q}.")
        if not 0 < accuracy < 1:
            raise ValueError(f"`accuracy` must lie between 0 and 1; got {accuracy}.")
        if not 0 < smallest < 1:
            raise ValueError(f"`smallest` must lie between 0 and 1; got {smallest}.")
        self.accuracy, self.smallest = accuracy, smallest
        self._growth = np.log((1 + accuracy) / (1 - accuracy))
        # Bucket k > 0 holds values around smallest · growth^k, -k their negatives, 0 what is smaller.
        self._highest = int(np.ceil(-2 * np.log(smallest) / self._growth))

    def partial(self, values: np.ndarray, valid: np.ndarray) -> Partial:
        """Counts in the buckets, shape `(numbers, buckets)`, and the shape of the output."""
        values = values[valid].astype(np.float64)
        columns = values.reshape(len(values), int(np.prod(values.shape[1:])))
        size = np.clip(np.abs(columns), self.smallest, 1 / self.smallest)
        bucket = np.ceil(np.log(size / self.smallest) / self._growth).astype(np.int64)
        bucket = np.sign(columns).astype(np.int64) * bucket + self._highest
        width = 2 * self._highest + 1
        flat = (np.arange(columns.shape[1])[None, :] * width + bucket).ravel()
        counts = np.bincount(flat, minlength=columns.shape[1] * width).reshape(columns.shape[1], width)
        return counts.astype(np.uint32), np.asarray(values.shape[1:], dtype=np.int64)

    def merge(self, first: Partial, second: Partial) -> Partial:
        """The counts of both."""
        return first[0] + second[0], first[1]

    def finish(self, partial: Partial) -> np.ndarray:
        """The quantiles, shape `(levels, ...)`; NaN if all members failed."""
        counts, shape = partial
        cumulative = np.cumsum(counts, axis=1, dtype=np.int64)
        number = cumulative[:, -1:]
        # The member of rank floor(q (n - 1)), as `numpy.quantile(..., method="lower")`.
        ranks = np.floor(self.q[:, None] * (number.T - 1))
        bucket = np.stack([np.sum(cumulative <= rank[:, None], axis=1) for rank in ranks]) - self._highest
        centre = 2 / (1 + np.exp(self._growth))
        value = np.sign(bucket) * self.smallest * np.exp(self._growth * np.abs(bucket)) * centre
        return np.where(number.T > 0, value, np.nan).reshape(len(self.q), *shape.tolist())

r"""Two-layer linear networks from any λ-balanced weights, aligned with the task or not: a matrix Riccati equation.

Set-up. Network $W_2W_1x$ with $W_1$ of shape (hidden, in) and $W_2$ of shape (out, hidden), whitened inputs, loss
$\tfrac12\mathbb E\lVert y - W_2W_1x\rVert^2$, gradient flow $\tau\dot W = -\partial L$, $\Sigma = \Sigma_{yx}$ of any
rank. The one assumption is

$$W_2^\top W_2 - W_1W_1^\top = \lambda I \quad\text{at } t = 0,$$

and then for ever. No alignment, no full rank, no equal dimensions; with one hidden unit every start qualifies.

Theory. With $Q = [W_1^\top; W_2]$ and $F = [[-\tfrac\lambda2 I, \Sigma^\top], [\Sigma, \tfrac\lambda2 I]]$, the matrix
$R = QQ^\top$ obeys $\tau\dot R = FR + RF - R^2$, so that

$$R(t) = e^{Ft}Q_0\,\Big(I + Q_0^\top \textstyle\int_0^t e^{2Fs}ds\; Q_0\Big)^{-1} Q_0^\top e^{Ft}.$$

$R$ holds $W_1^\top W_1$, $W_2W_1$ and $W_2W_2^\top$: everything but rotations of the hidden layer.

Evaluation. In the eigenbasis of $F$ (eigenvalues $f$ in decreasing order) the rows of $A = V_F^\top Q_0$ grow at
different rates, and the formula as it stands loses them to rounding. A rotation of the hidden layer, which leaves $R$
alone, brings $A$ to column echelon form: column $j$ starts at a pivot row, and whatever stands below grows no faster.
Each column is then measured in units of its own pivot's growth; all exponents are non-positive and one expression serves
every rank, shape and sign of λ, and every time up to infinity.

Source: Fukumizu 1998; Braun, Dominé, Fitzgerald and Saxe 2022; Dominé et al. 2024, arXiv 2409.14623. The solution is
derived here without their assumptions on rank and dimensions.
"""

import warnings
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..core import AbstractRule, Assumption, Kind, concrete, enforce, relative_norm, tolerance_for
from ..special import decay_integral
from ._base import AbstractLinearSolution, balance_matrices, check_flow, check_layers, no_weight_decay, whitened
from ._network import DeepLinear
from ._task import LinearTask


class Correlations(eqx.Module):
    """What a two-layer linear network is, up to rotations of its hidden layer.

    **Attributes:**

    - `input_gram`: $W_1^\\top W_1$, shape `(in, in)`, the similarity of the hidden representations of the inputs.
    - `product`: $W_2W_1$, shape `(out, in)`.
    - `output_gram`: $W_2W_2^\\top$, shape `(out, out)`.
    """

    input_gram: Float[Array, "in in"]
    product: Float[Array, "out in"]
    output_gram: Float[Array, "out out"]

    def representation_similarity(self, inputs: Float[Array, "examples in"]) -> Float[Array, "examples examples"]:
        """Inner products of the hidden activity of all pairs of (whitened) inputs."""
        return inputs @ self.input_gram @ inputs.T

    def tangent_kernel(self, inputs: Float[Array, "examples in"]) -> Float[Array, "examples out examples out"]:
        """The neural tangent kernel on a batch of (whitened) inputs, indexed as by `tx.analysis.tangent_kernel`."""
        identity = jnp.eye(self.output_gram.shape[0], dtype=self.product.dtype)
        first = jnp.einsum("ij,ab->iajb", self.representation_similarity(inputs), identity)
        return first + jnp.einsum("ij,ab->iajb", inputs @ inputs.T, self.output_gram)


class LambdaBalancedRiccati(AbstractLinearSolution):
    """Exact training of a two-layer linear network from λ-balanced weights.

    Build it with `from_model`. Time is in the rule's units ($\\tau$ is its `time_constant`). Derivatives with respect to
    the weights and to time exist everywhere; those with respect to $\\Sigma$ go through its singular vectors and exist
    where its singular values are distinct and not zero.

    **Attributes:**

    - `eigenvalues`: $f$, in decreasing order, shape `(rows,)`.
    - `input_basis`, `output_basis`: the eigenvectors of $F$, or a tight frame of them, shapes `(in, rows)` and
      `(out, rows)`.
    - `start`: $A$ in column echelon form, shape `(rows, hidden)`; columns beyond the rank are zero.
    - `pivots`: the row at which each column starts, shape `(hidden,)`; `rows` for columns of zeros.
    - `lam`: $\\lambda$.
    - `time_constant`: $\\tau$.
    """

    eigenvalues: Float[Array, " rows"]
    input_basis: Float[Array, "in rows"]
    output_basis: Float[Array, "out rows"]
    start: Float[Array, "rows hidden"]
    pivots: Int[Array, " hidden"]
    lam: Float[Array, ""]
    time_constant: Float[Array, ""]
    task: LinearTask
    kind: ClassVar[Kind] = "exact"

    @classmethod
    def from_model(
        cls, model: DeepLinear, task: LinearTask, rule: AbstractRule | None = None, *, check: bool = True
    ) -> "LambdaBalancedRiccati":
        """The solution for a network, having checked that its weights are λ-balanced and the inputs white.

        **Raises:**

        `ValueError` if the network has not two layers, does not fit the task, or violates an assumption.
        """
        rule = check_flow(rule, cls.__name__)
        w1, w2 = check_layers(model, task, depth=2).weights
        (balance,) = balance_matrices(model)
        lam = jnp.trace(balance) / balance.shape[0]
        f, v, u = _eigenbasis(task.optimum, lam)
        start, pivots = _echelon(v.T @ w1.T + u.T @ w2)
        solution = cls(f, v, u, start, pivots, lam, rule.time_constant.astype(lam.dtype), task)
        if concrete(solution.generic < 1e-8):
            warnings.warn(
                "These weights lie on the way to a saddle, or so near that rounding decides: the solution follows the "
                "exact flow into it; a simulation escapes after a time set by rounding. Do not compare beyond.",
                stacklevel=2,
            )
        return enforce(solution, cls.__name__, cls.assumptions(model, task, rule)) if check else solution

    @classmethod
    def assumptions(cls, model: DeepLinear, task: LinearTask, rule: AbstractRule | None = None) -> tuple[Assumption, ...]:
        """How far the case is from what the solution takes for granted."""
        rule = check_flow(rule, cls.__name__)
        w1, w2 = check_layers(model, task, depth=2).weights
        (balance,) = balance_matrices(model)
        lam = jnp.trace(balance) / balance.shape[0]
        off = balance - lam * jnp.eye(balance.shape[0], dtype=balance.dtype)
        size = jnp.linalg.norm(w1) ** 2 + jnp.linalg.norm(w2) ** 2
        unbalanced = relative_norm(off, size)
        return (
            Assumption("λ-balanced weights, W2ᵀW2 - W1W1ᵀ = λI", unbalanced, tolerance_for(w1)),
            whitened(task),
            no_weight_decay(rule),
        )

    @property
    @eqx.filter_jit
    def generic(self) -> Float[Array, ""]:
        """How far the start is from the way to a saddle, relative to its size: 0 on it.

        A square network with at least as many hidden units starts there whenever $\\lambda = 0$ and
        $\\det W_2W_1(0)\\,\\det\\Sigma < 0$: for half of all random starts.
        """
        n_out, n_in = self.task.optimum.shape
        modes, hidden = min(n_in, n_out), self.start.shape[1]
        leftover = jnp.full(abs(n_in - n_out), jnp.sign(n_out - n_in) * self.lam / 2)
        available = jnp.concatenate([self.eigenvalues[:modes], leftover, jnp.zeros(hidden, self.lam.dtype)])[:hidden]
        missed = available - self._pivot_growth(self.eigenvalues) > self._tie
        size = jnp.abs(self.start.at[self.pivots, jnp.arange(hidden)].get(mode="fill", fill_value=0.0))
        size = jnp.where(available > self._tie, size, jnp.inf)
        return jnp.where(jnp.any(missed), 0.0, jnp.minimum(1.0, jnp.min(size) / jnp.max(jnp.abs(self.start))))

    @property
    def _tie(self) -> Float[Array, ""]:
        """Eigenvalues closer than this are equal."""
        return 1e3 * jnp.finfo(self.eigenvalues.dtype).eps * self.eigenvalues[0]

    def state(self, t: Float[Array, ""]) -> Correlations:
        """The correlations at time `t`."""
        f = self.eigenvalues
        # A direction with nothing to learn decays like 1/t for ever; a finite time keeps ∞/∞ out of it.
        t = jnp.minimum(t.astype(f.dtype) / self.time_constant, jnp.finfo(f.dtype).max ** 0.5)
        growth = self._pivot_growth(f)
        units = jnp.exp(-growth * t)
        # The start, grown for a time t, in units of each pivot's growth; decaying rows are kept apart.
        relative = jnp.maximum(f, 0.0)[:, None] - growth[None, :]
        grown = self.start * jnp.exp(jnp.minimum(relative, 0.0) * t)
        weight = decay_integral(2 * jnp.abs(f), t)
        moved = jnp.exp(jnp.minimum(f, 0.0) * t)[:, None] * grown
        return self._blocks(moved, jnp.diag(units**2) + grown.T @ (weight[:, None] * grown))

    @eqx.filter_jit
    def limit(self) -> Correlations:
        """The correlations as t → ∞: the best map of rank `hidden`, unless the flow starts on the way to a saddle.

        Where the weakest learned singular value is repeated, or ties with the rest of the spectrum, the limit depends on
        the start and that is taken into account.
        """
        f, tie = self.eigenvalues, self._tie
        growth = self._pivot_growth(f)
        stays = (f > tie)[:, None] & (growth > tie)[None, :] & (f[:, None] >= growth[None, :] - tie)
        grown = jnp.where(stays, self.start, 0.0)
        weight = jnp.where(f > tie, 1 / (2 * jnp.where(f > tie, f, 1.0)), 0.0)
        gram = grown.T @ (weight[:, None] * grown)
        return self._blocks(grown, gram + jnp.diag(jnp.where(jnp.any(stays, axis=0), 0.0, 1.0)))

    def vector_field(self, t: Float[Array, ""], state: Correlations) -> Correlations:
        """The flow of the correlations, straight from the gradient flow of the weights."""
        del t
        error = self.task.optimum - state.product
        into = error.T @ state.product
        out = error @ state.product.T
        return jax.tree.map(
            lambda x: x / self.time_constant,
            Correlations(into + into.T, error @ state.input_gram + state.output_gram @ error, out + out.T),
        )

    def reduce(self, model: DeepLinear) -> Correlations:
        """The correlations of a network."""
        w1, w2 = model.weights
        return Correlations(w1.T @ w1, w2 @ w1, w2 @ w2.T)

    def product_of(self, state: Correlations) -> Float[Array, "out in"]:
        """The input-output map."""
        return state.product

    def _pivot_growth(self, f: Array) -> Array:
        """The growth rate of each column's pivot; zero where it decays."""
        return jnp.maximum(f.at[self.pivots].get(mode="fill", fill_value=0.0), 0.0)

    def _blocks(self, moved: Array, gram: Array) -> Correlations:
        """V_F X N⁻¹ Xᵀ V_Fᵀ, through a Cholesky factor of N."""
        # Columns of very different size cost no accuracy once N has a unit diagonal.
        scale = jax.lax.stop_gradient(1 / jnp.sqrt(jnp.diagonal(gram)))
        factor = jnp.linalg.cholesky(scale[:, None] * gram * scale[None, :])
        half = jax.scipy.linalg.solve_triangular(factor, (moved * scale[None, :]).T, lower=True).T
        inputs, outputs = self.input_basis @ half, self.output_basis @ half
        return Correlations(inputs @ inputs.T, outputs @ inputs.T, outputs @ outputs.T)


@jax.jit
def _eigenbasis(sigma: Array, lam: Array) -> tuple[Array, Array, Array]:
    """Eigenvalues of F in decreasing order, and the input and output parts of its eigenvectors, one a column.

    The eigenvalues ±√(s² + λ²/4) belong to the singular vectors of Σ; the directions that a rectangular Σ leaves over
    have ∓λ/2 and are represented by a projector, whose columns are a tight frame: no basis of them has to be chosen.
    """
    n_out, n_in = sigma.shape
    u, s, vt = jnp.linalg.svd(sigma, full_matrices=False)
    v = vt.T
    square = s**2 + lam**2 / 4
    still = square <= (max(n_in, n_out) * jnp.finfo(s.dtype).eps) ** 2 * square[0]
    f = _merged(jnp.where(still, 0.0, jnp.sqrt(jnp.where(still, 1.0, square))))
    angle = jnp.arctan2(jnp.where(still, 0.0, s), jnp.where(still, 1.0, -lam / 2)) / 2
    c, n = jnp.cos(angle)[None, :], jnp.sin(angle)[None, :]
    if n_in > n_out:
        left_v, left_u = jnp.eye(n_in, dtype=s.dtype) - v @ vt, jnp.zeros((n_out, n_in), s.dtype)
        left_f = jnp.broadcast_to(-lam / 2, (n_in,))
    elif n_out > n_in:
        left_v, left_u = jnp.zeros((n_in, n_out), s.dtype), jnp.eye(n_out, dtype=s.dtype) - u @ u.T
        left_f = jnp.broadcast_to(lam / 2, (n_out,))
    else:
        left_v, left_u, left_f = jnp.zeros((n_in, 0), s.dtype), jnp.zeros((n_out, 0), s.dtype), jnp.zeros(0, s.dtype)
    return (
        jnp.concatenate([f, left_f, -f[::-1]]),
        jnp.concatenate([c * v, left_v, (-n * v)[:, ::-1]], axis=1),
        jnp.concatenate([n * u, left_u, (c * u)[:, ::-1]], axis=1),
    )


def _merged(f: Array) -> Array:
    """Decreasing eigenvalues with those made equal that rounding has split, or it would choose between them at late t."""
    splits = f[:-1] - f[1:] > 32 * f.shape[0] * jnp.finfo(f.dtype).eps * f[0]
    index = jnp.arange(f.shape[0])
    return f[jax.lax.cummax(jnp.where(jnp.concatenate([jnp.ones(1, bool), splits]), index, 0))]


@jax.jit
def _echelon(a: Array) -> tuple[Array, Array]:
    """Rotates the columns of `a` to echelon form; returns it, and the pivot row of each column.

    Gram–Schmidt on the rows from the top: a row that is new relative to those above becomes the pivot of the next column.
    """
    rows, hidden = a.shape
    tolerance = 16 * hidden * jnp.finfo(a.dtype).eps * jnp.max(jnp.linalg.norm(a, axis=1))

    def visit(carry, row):
        basis, count = carry
        new = row - basis.T @ (basis @ row)
        new = new - basis.T @ (basis @ new)
        square = jnp.sum(new**2)
        is_pivot = (square > tolerance**2) & (count < hidden)
        direction = new / jnp.sqrt(jnp.where(is_pivot, square, 1.0))
        here = (jnp.arange(hidden) == count) & is_pivot
        basis = jnp.where(here[:, None], direction[None, :], basis)
        return (basis, count + is_pivot.astype(count.dtype)), is_pivot

    (basis, _), is_pivot = jax.lax.scan(visit, (jnp.zeros((hidden, hidden), a.dtype), jnp.asarray(0)), a)
    pivots = jnp.nonzero(is_pivot, size=hidden, fill_value=rows)[0]
    # Above its pivot a column vanishes up to rounding, which must not be given a positive exponent.
    echelon = jnp.where(jnp.arange(rows)[:, None] >= pivots[None, :], a @ basis.T, 0.0)
    return echelon, pivots

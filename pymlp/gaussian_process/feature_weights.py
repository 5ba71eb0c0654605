"""One length scale per group of features (automatic relevance determination), whole structures.

A length scale l_g = 1/w_g for group g is the same covariance on features and Jacobians scaled by
w_g. Squared distances, u and JJᵀ are then weighted sums over groups,

    s = Σ_g w_g² s_g,    u_ij = Σ_g w_g² u_ij,g,    J_iJ_jᵀ = Σ_g w_g² (J_iJ_jᵀ)_g,

whose terms are computed once: after that an evaluation of the likelihood costs one pass over them
and one factorisation, however many features there are. The gradient takes one pass more. With W
the weight of `likelihood` (∂L = ½ tr(W ∂K)), ∂k/∂s = −a/2, ∂a/∂s = −b/2 and c = ∂b/∂s,

    ∂L/∂ln w_g = w_g² Σ_ij [ C_ij s_g + v_ij·u_ij,g + v'_ij·u_ji,g + a ⟨W_FF, (J_iJ_jᵀ)_g⟩ ]
    C  = −½ a W_EE + b u_ij·W_FE − ½ b ⟨W_FF, J_iJ_jᵀ⟩ + c u_ijᵀ W_FF u_ji
    v  = −2a W_FE + b W_FF u_ji
    v' = b W_FFᵀ u_ij,

summed over the images of j under a symmetry. `GaussianProcess.fit(weight_structures=...)` does all
of it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pymlp.covariances import Covariance, squared_distances
from pymlp.gaussian_process.assembly import Blocks
from pymlp.gaussian_process.cholesky import factorize, solve_
from pymlp.gaussian_process.likelihood import Hyperparameters, Likelihood, noise_diagonal
from pymlp.gaussian_process.points import Points

__all__ = ["GroupProducts", "WeightedLikelihood", "maximize_weights"]


@dataclass(frozen=True)
class GroupProducts:
    """What the covariance is made of, by group of features and image of the second structure.

    Args:
        points: the structures they belong to.
        squares: s_g, [G, S, n, n].
        rows: u_ij,g, [G, S, n, r, n].
        columns: u_ji,g, [G, S, n, n, r].
        products: (J_iJ_jᵀ)_g, [G, S, n, r, n, r].
    """

    points: Points
    squares: Tensor
    rows: Tensor
    columns: Tensor
    products: Tensor

    @staticmethod
    def nbytes(n: int, r: int, groups: int, images: int) -> int:
        """The memory of n structures with r derivatives."""
        return 8 * groups * images * (n * (1 + r)) ** 2

    @staticmethod
    def of(points: Points, groups: Tensor) -> GroupProducts:
        """All products.

        Args:
            points: whole structures with energies and derivatives; a symmetry as indices.
            groups: [p] int64, 0 … G−1, the same for features that the symmetry exchanges.

        Raises:
            ValueError: other points, or groups that the symmetry mixes.
        """
        if len(points.types) != 1 or points.jacobian is None or not points.energies:
            raise ValueError("points must be whole structures with energies and derivatives")
        if points.characters is not None:
            raise ValueError("points must hold their symmetry as indices, not as characters")
        images = points.images()
        if points.symmetry is not None and any(
            not torch.equal(groups, groups[index]) for index in points.symmetry
        ):
            raise ValueError("groups must not separate features that the symmetry exchanges")
        x, jacobian = points.features[:, 0], points.jacobian[:, 0]
        n, r = jacobian.shape[:2]
        shape = (int(groups.max()) + 1, len(images), n)
        squares, rows = x.new_empty((*shape, n)), x.new_empty((*shape, r, n))
        columns, products = x.new_empty((*shape, n, r)), x.new_empty((*shape, r, n, r))
        for group in range(shape[0]):
            which = torch.nonzero(groups == group).squeeze(1)
            own, flat = x[:, which], jacobian[:, :, which].flatten(0, 1)
            left = (flat.view(n, r, -1) * own[:, None]).sum(2)
            for number, image in enumerate(images):
                assert image.jacobian is not None
                y = image.features[:, 0, which]
                other = image.jacobian[:, 0][:, :, which].flatten(0, 1)
                right = (other.view(n, r, -1) * y[:, None]).sum(2)
                squares[group, number] = squared_distances(own, y)
                rows[group, number] = left[:, :, None] - (flat @ y.mT).view(n, r, n)
                columns[group, number] = right - (own @ other.mT).view(n, n, r)
                torch.mm(flat, other.mT, out=products[group, number].view(n * r, n * r))
        return GroupProducts(points, squares, rows, columns, products)

    def weighted(self, weights: Tensor, image: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(s, u_ij, u_ji, JJᵀ) of one image under weights [G]."""
        scale = weights.square()
        s, rows, columns, products = (
            torch.tensordot(scale, item[:, image], 1)
            for item in (self.squares, self.rows, self.columns, self.products)
        )
        return s, rows, columns, products


@dataclass(frozen=True)
class WeightedLikelihood:
    """The concentrated likelihood (see `likelihood`) with a weight for every group.

    Args:
        products: from `GroupProducts.of`.
        targets: [m] observations minus the mean.
    """

    products: GroupProducts
    targets: Tensor

    def matrix(self, covariance: Covariance, weights: Tensor) -> Tensor:
        """The covariance matrix [m, m] of weights [G]; its lower triangle."""
        points = self.products.points
        matrix = self.targets.new_zeros((len(self.targets), len(self.targets)))
        blocks = Blocks.of(matrix, points, points)
        assert blocks.ee is not None
        assert blocks.fe is not None
        assert blocks.ff is not None
        for image in range(self.products.squares.shape[1]):
            s, rows, columns, products = self.products.weighted(weights, image)
            k, a, b = covariance.terms(s)
            blocks.ee.add_(k)
            blocks.fe.sub_(a[:, None] * rows)
            blocks.ff.addcmul_(products, a[:, None, :, None])
            blocks.ff.addcmul_((rows * b[:, None])[..., None], columns[:, None])
        return matrix

    def __call__(
        self, covariance: Covariance, weights: Tensor, energy_noise: float, force_noise: float
    ) -> tuple[Likelihood, Tensor]:
        """L at λ_E and λ_F, and its gradient.

        Returns:
            The likelihood, its gradient by the noises and by parameters of the covariance other
            than the length scale; and ∂L/∂ln w [G].

        Raises:
            ArithmeticError: not positive definite in spite of jitter.
        """
        points, m = self.products.points, len(self.targets)
        noise = noise_diagonal([points], energy_noise, force_noise)
        factor, jitter = factorize(lambda: self.matrix(covariance, weights), noise)
        half = solve_(factor, self.targets[:, None].clone())
        sigma = float(half.square().sum()) / m
        alpha = solve_(factor, half, transposed=True)[:, 0]
        log_determinant = 2.0 * float(factor.diagonal().log().sum())
        value = -0.5 * (m + log_determinant + m * math.log(2.0 * math.pi * sigma))
        weight = torch.cholesky_inverse(factor.tril_()).neg_().addr_(alpha, alpha, alpha=1 / sigma)
        diagonal = weight.diagonal()
        others, slopes = self._slopes(covariance, weights, Blocks.of(weight, points, points))
        others["energy_noise"] = 0.5 * energy_noise * float(diagonal[: len(points)].sum())
        others["force_noise"] = 0.5 * force_noise * float(diagonal[len(points) :].sum())
        return Likelihood(value, sigma, others, jitter), slopes

    def _slopes(
        self, covariance: Covariance, weights: Tensor, w: Blocks
    ) -> tuple[dict[str, float], Tensor]:
        assert w.ee is not None
        assert w.fe is not None
        assert w.ff is not None
        names = [name for name in covariance.parameters() if name != "length_scale"]
        others = dict.fromkeys(names, 0.0)
        slopes = torch.zeros_like(weights)
        count = len(weights)
        for image in range(self.products.squares.shape[1]):
            s, rows, columns, products = self.products.weighted(weights, image)
            _, a, b = covariance.terms(s)
            c = covariance.curvature_slope(s)
            inner = torch.einsum("irjq,irjq->ij", w.ff, products)
            turned = torch.einsum("irjq,ijq->irj", w.ff, columns)
            back = torch.einsum("irjq,irj->ijq", w.ff, rows)
            along, across = (rows * w.fe).sum(1), (rows * turned).sum(1)
            for name in names:
                dk, da, db = covariance.log_derivative(name, s)
                total = 0.5 * dk * w.ee - da * along + 0.5 * (da * inner + db * across)
                others[name] += float(total.sum())
            squares = -0.5 * a * w.ee + b * along - 0.5 * b * inner + c * across
            left = b[:, None] * turned - 2.0 * a[:, None] * w.fe
            parts = (
                (self.products.squares, squares),
                (self.products.rows, left),
                (self.products.columns, b[..., None] * back),
                (self.products.products, a[:, None, :, None] * w.ff),
            )
            for stack, by in parts:
                slopes += stack[:, image].reshape(count, -1) @ by.reshape(-1)
        return others, slopes * weights.square()


def maximize_weights(
    likelihood: WeightedLikelihood,
    covariance: Covariance,
    start: tuple[Tensor, float, float] | None = None,
    max_iterations: int = 30,
    report: Callable[[str], None] | None = None,
) -> tuple[Tensor, Hyperparameters, float]:
    """Weights, noises and the covariance's own parameters at the maximum of the likelihood.

    Args:
        likelihood: of some structures.
        covariance: its length scale is replaced by 1, its other parameters are where the search
            begins.
        start: weights [G], λ_E, λ_F; read off the data where None is given.
        max_iterations: of L-BFGS.
        report: called with one line per evaluation.

    Returns:
        Weights [G], hyperparameters (length scale 1), and the log likelihood.

    Raises:
        ArithmeticError: the likelihood exists nowhere on the way.
    """
    from scipy.optimize import minimize

    covariance = covariance.replace(length_scale=1.0)
    products = likelihood.products
    weights, energy, force = start or _start(products, covariance)
    count, m = len(weights), len(likelihood.targets)
    names = [name for name in covariance.parameters() if name != "length_scale"]
    own = covariance.parameters()
    origin = weights.log().tolist() + [math.log(own[name]) for name in names]
    origin += [math.log(energy), math.log(force)]
    best: tuple[float, list[float], float] | None = None

    def unpack(vector: list[float]) -> tuple[Covariance, Tensor, float, float]:
        values = [math.exp(value) for value in vector]
        found = covariance.replace(**dict(zip(names, values[count:-2], strict=True)))
        return found, weights.new_tensor(values[:count]), values[-2], values[-1]

    def objective(vector: list[float]) -> tuple[float, list[float]]:
        nonlocal best
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                result, slopes = likelihood(*unpack(vector))
        except ArithmeticError:
            return 1e30, [0.0] * len(vector)
        if best is None or result.value > best[0]:
            best = (result.value, list(vector), result.signal_variance)
        if report is not None:
            report(f"log likelihood {result.value:.2f} with {count} feature weights")
        gradient = slopes.tolist() + [result.gradient[name] for name in names]
        gradient += [result.gradient["energy_noise"], result.gradient["force_noise"]]
        return -result.value / m, [-slope / m for slope in gradient]

    bounds = [(value - 6.0, value + 6.0) for value in origin[:-2]]
    # A few structures can be fitted without any noise; a hundredth of the start is as good as none.
    bounds += [(value - 9.2, value + 12.0) for value in origin[-2:]]
    options = {"maxiter": max_iterations, "ftol": 1e-5, "gtol": 1e-5}
    minimize(objective, origin, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    if best is None:
        raise ArithmeticError("the likelihood could not be evaluated at any point of the search")
    value, vector, sigma = best
    found, weights, energy, force = unpack(vector)
    noises = ((energy * sigma) ** 0.5, (force * sigma) ** 0.5)
    return weights, Hyperparameters(found, sigma, *noises), value


def _start(products: GroupProducts, covariance: Covariance) -> tuple[Tensor, float, float]:
    """Weights that let every group add as much to distances, and small noises."""
    groups, _, n = products.squares.shape[:3]
    i, j = torch.tril_indices(n, n, -1)
    typical = products.squares[:, 0][:, i, j].median(1).values
    weights = (9.0 * groups * typical.clamp(min=1e-12)).rsqrt()
    diagonal = products.products[:, 0].flatten(3, 4).flatten(1, 2)
    slope = diagonal.diagonal(dim1=1, dim2=2).mean(1) @ weights.square()
    return weights, 1e-5, max(1e-12, 1e-4 * covariance.at_zero()[1] * float(slope))

"""Embedding networks of DeepPot-SE (eq 10): from s(R) to the rows of 𝒢, one network for each kind.

Layers are residual as in the paper: where the width stays, the input is added to the tanh output;
where it doubles, the input beside itself is. Pairs come sorted by kind, so that each layer of each
network is one matrix product on its own pairs alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

__all__ = ["EmbeddingNetworks", "EmbeddingTable"]

#: Pairs of one kind whose layers are computed at a time, without a graph.
_CHUNK = 1024

#: Slopes, and places of the bends, of a new network's first layer, by s standardised.
_SLOPES = (0.5, 6.0)
_BENDS = (-1.5, 3.0)


class EmbeddingNetworks(nn.Module):
    """One network s -> [m1] for each kind of pair.

    Args:
        n_kinds: number of networks.
        widths: of the layers; the last is m1.
        seed: of the initial weights; ``None`` takes torch's global generator.
        dtype: of the weights; torch's default if ``None``.

    Attributes:
        input_mean, input_scale: [n_kinds] float64, what s is standardised by (0 and 1: not at all).

    Raises:
        ValueError: for no layers, or sizes below one.
    """

    input_mean: Tensor
    input_scale: Tensor

    _FLOAT64 = ("input_mean", "input_scale")

    def __init__(
        self,
        n_kinds: int,
        widths: Sequence[int] = (25, 50, 100),
        *,
        seed: int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.n_kinds = int(n_kinds)
        self.widths = tuple(int(width) for width in widths)
        if not self.widths or min(self.widths) < 1 or self.n_kinds < 1:
            raise ValueError(
                f"embedding must be a list of widths of at least 1, got {list(widths)} "
                f"for {n_kinds} kinds of pairs"
            )
        generator = None if seed is None else torch.Generator().manual_seed(int(seed))
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        float64 = torch.float64
        for n_in, n_out in pairwise((1, *self.widths)):
            # Drawn in float64 and then rounded: a seed means the same networks in any precision.
            weight, bias = _initial(self.n_kinds, n_in, n_out, generator)
            kind = dtype or torch.get_default_dtype()
            self.weights.append(nn.Parameter(weight.to(kind)))
            self.biases.append(nn.Parameter(bias.to(kind)))
        self.register_buffer("input_mean", torch.zeros(self.n_kinds, dtype=float64))
        self.register_buffer("input_scale", torch.ones(self.n_kinds, dtype=float64))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> EmbeddingNetworks:
        kept = {name: getattr(self, name) for name in self._FLOAT64}
        super()._apply(fn, recurse)
        for name, value in kept.items():  # a cast does not round them
            setattr(self, name, value.to(getattr(self, name).device))
        return self

    @property
    def n_functions(self) -> int:
        """m1."""
        return self.widths[-1]

    def forward(self, s: Tensor, counts: Sequence[int]) -> Tensor:
        """Return 𝒢 [P, m1] in the precision of ``s``, differentiable as often as wanted.

        Args:
            s: [P] 1/Å, sorted by kind.
            counts: pairs of each kind.
        """
        if not torch.is_grad_enabled():
            return self._in_chunks(s, counts, slopes=False)[0]
        parts = []
        layers = self._layers(s.dtype)
        mean, scale = self._standards(s.dtype)
        for kind, part in enumerate(s.split(tuple(counts))):
            if not len(part):
                continue
            x = ((part - mean[kind]) / scale[kind])[:, None]
            for weight, bias in layers:
                y = torch.tanh(torch.addmm(bias[kind], x, weight[kind]))
                x = _residual(x, y)
            parts.append(x)
        return torch.cat(parts) if parts else s.new_zeros(0, self.n_functions)

    @torch.no_grad()
    def with_slopes(self, s: Tensor, counts: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return 𝒢 and d𝒢/ds [P, m1], without a graph; arguments as in :meth:`forward`."""
        return self._in_chunks(s, counts, slopes=True)

    def _in_chunks(
        self, s: Tensor, counts: Sequence[int], *, slopes: bool
    ) -> tuple[Tensor, Tensor]:
        # So few pairs at a time that what stands between the layers stays in the cache: half the
        # time of whole kinds at once.
        g = s.new_empty(len(s), self.n_functions)
        g_slope = torch.empty_like(g) if slopes else g
        layers = self._layers(s.dtype)
        mean, scale = self._standards(s.dtype)
        begin = 0
        for kind, count in enumerate(counts):
            own = [(weight[kind], bias[kind]) for weight, bias in layers]
            for first in range(begin, begin + count, _CHUNK):
                rows = slice(first, min(first + _CHUNK, begin + count))
                x = ((s[rows] - mean[kind]) / scale[kind])[:, None]
                slope = x.new_ones(x.shape) / scale[kind]
                for weight, bias in own:
                    # tanh z = 2 / (1 + exp(-2 z)) - 1, to one rounding of 1: torch's own tanh takes
                    # six times as long and two thirds of this loop.
                    y = torch.addmm(bias, x, weight, beta=2, alpha=2)
                    y = y.sigmoid_().mul_(2).sub_(1)
                    if slopes:
                        along = slope @ weight
                        along.addcmul_(y * y, along, value=-1)
                        slope = _add_input(slope, along)
                    x = _add_input(x, y)
                g[rows] = x
                if slopes:
                    g_slope[rows] = slope
            begin += count
        return g, g_slope

    def jets(self, s: Tensor) -> Tensor:
        """Return the functions of all kinds with two derivatives by s, [3, n_kinds, n, m1] float64.

        Differentiable in the weights, and few torch calls: kinds and derivatives go through each
        layer as one batched product.

        Args:
            s: [n] 1/Å, the same for all kinds.
        """
        float64 = torch.float64
        n = len(s)
        scale = self.input_scale[:, None, None]
        x = (s.to(float64)[None, :, None] - self.input_mean[:, None, None]) / scale
        x = torch.cat([x, (1 / scale).expand(x.shape), x.new_zeros(x.shape)], dim=1)
        for weight, bias in zip(self.weights, self.biases, strict=True):
            z, slope, bend = (x @ weight.to(float64)).split(n, dim=1)
            y = torch.tanh(z + bias.to(float64)[:, None])
            share = 1 - y * y
            along = share * slope
            bend = torch.addcmul(share * bend, y * along, slope, value=-2)
            x = _residual(x, torch.cat([y, along, bend], dim=1))
        return x.reshape(self.n_kinds, 3, n, -1).transpose(0, 1)

    def interpolated(self, low: float, high: float, width: float) -> tuple[Tensor, float, float]:
        """Return polynomials in s that stand for the networks, differentiable in the weights.

        Args:
            low: 1/Å, smallest s.
            high: 1/Å, largest s.
            width: 1/Å, of an interval; a multiple of it lies at or below ``low``.

        Returns:
            Coefficients as of :class:`EmbeddingTable`, float64; where they begin; and the largest
            difference from the networks in the middle of the intervals, where it is largest,
            relative to the largest value.
        """
        begin = math.floor(low / width) * width
        count = max(1, math.ceil((high - begin) / width + 1e-6))
        nodes = begin + width * torch.arange(
            count + 1, dtype=torch.float64, device=self.input_mean.device
        )
        jets = self.jets(nodes)
        with torch.no_grad():
            exact = self.values(nodes[:-1] + 0.5 * width)
            error = float((_middles(jets, width) - exact).abs().max())
            error /= max(float(exact.abs().max()), 1e-30)
        return _hermite(jets, width), begin, error

    def values(self, s: Tensor) -> Tensor:
        """Return the functions of all kinds at ``s`` [n] (1/Å), [n_kinds, n, m1] float64."""
        float64 = torch.float64
        x = (s.to(float64)[None] - self.input_mean[:, None]) / self.input_scale[:, None]
        x = x[..., None]
        for weight, bias in zip(self.weights, self.biases, strict=True):
            z = torch.baddbmm(bias.to(float64)[:, None], x, weight.to(float64))
            x = _residual(x, torch.tanh(z))
        return x

    def flat(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return what the op ``deep_pot_se_networks`` reads, differentiable in the weights.

        Returns:
            Weights and biases [n_kinds, Q], layer after layer; and factor and summand of s
            [n_kinds, 2].
        """
        parts = [
            part
            for weight, bias in zip(self.weights, self.biases, strict=True)
            for part in (weight.flatten(1), bias)
        ]
        factor = 1 / self.input_scale
        standards = torch.stack([factor, -self.input_mean * factor], dim=1)
        return torch.cat(parts, dim=1).to(dtype), standards.to(dtype)

    def _layers(self, dtype: torch.dtype) -> list[tuple[tuple[Tensor, ...], tuple[Tensor, ...]]]:
        # Cast where a model of float64 weights is evaluated in float32: small beside the pairs.
        return [
            (w.to(dtype).unbind(0), b.to(dtype).unbind(0))
            for w, b in zip(self.weights, self.biases, strict=True)
        ]

    def _standards(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        return self.input_mean.to(dtype), self.input_scale.to(dtype)

    @torch.no_grad()
    def fit_inputs(self, s: Tensor, counts: Sequence[int]) -> None:
        """Set what s is standardised by to its mean and spread for each kind.

        Args:
            s: [P] 1/Å of training structures, sorted by kind.
            counts: pairs of each kind; a kind without pairs keeps 0 and 1.
        """
        for kind, part in enumerate(s.double().split(tuple(counts))):
            if len(part) < 2:
                continue
            spread = part.std()
            self.input_mean[kind] = part.mean()
            self.input_scale[kind] = spread if float(spread) > 0 else 1.0


def _initial(
    n_kinds: int, n_in: int, n_out: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Initial weights [n_kinds, n_in, n_out] and biases [n_kinds, n_out] of one layer, float64.

    Functions of one number differ by where and how steeply they bend. The first layer's bends are
    spread over the standardised s, with slopes from flat to steep: 50 of 384 features of the
    Claisen set then vary by more than 1e-2 of the largest principal component's spread. With normal
    weights all functions are nearly straight lines, and there are 17.
    """
    float64 = torch.float64
    if n_in > 1:
        spread = (n_in + n_out) ** -0.5
        weight = spread * torch.randn(n_kinds, n_in, n_out, generator=generator, dtype=float64)
        return weight, 0.3 * torch.randn(n_kinds, n_out, generator=generator, dtype=float64)
    low, high = math.log(_SLOPES[0]), math.log(_SLOPES[1])
    draws = torch.rand(3, n_kinds, n_out, generator=generator, dtype=float64)
    slopes = torch.exp(low + (high - low) * draws[0])
    slopes = torch.where(draws[1] < 0.5, -slopes, slopes)
    bends = _BENDS[0] + (_BENDS[1] - _BENDS[0]) * draws[2]
    return slopes[:, None], -slopes * bends


def _add_input(x: Tensor, y: Tensor) -> Tensor:
    """The output y of a layer with its input added in place."""
    n = x.shape[1]
    if y.shape[1] in (n, 2 * n):
        y[:, :n] += x
        y[:, n:] += x[:, : y.shape[1] - n]
    return y


def _residual(x: Tensor, y: Tensor) -> Tensor:
    """The output y [..., n_out] of a layer plus its input x [..., n_in], where widths allow."""
    if y.shape[-1] == x.shape[-1]:
        return x + y
    if y.shape[-1] == 2 * x.shape[-1]:
        return torch.cat([x, x], dim=-1) + y
    return y


def _hermite(jets: Tensor, width: float) -> Tensor:
    """Polynomials of degree five through jets at n + 1 nodes that lie ``width`` apart.

    Args:
        jets: [3, n_kinds, n + 1, m1].
        width: 1/Å.

    Returns:
        [n_kinds, n, 6, m1 padded to a multiple of 16], in the position within an interval (0 to 1),
        constant first: what the op reads.
    """
    h, hh = width, width * width
    rows = [
        [1.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        [0.0, h, 0.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.5 * hh, 0.0, 0.0, 0.0],
        [-10.0, -6 * h, -1.5 * hh, 10.0, -4 * h, 0.5 * hh],
        [15.0, 8 * h, 1.5 * hh, -15.0, 7 * h, -hh],
        [-6.0, -3 * h, -0.5 * hh, 6.0, -3 * h, 0.5 * hh],
    ]
    ends = torch.cat([jets[:, :, :-1], jets[:, :, 1:]])
    found = (ends.new_tensor(rows) @ ends.flatten(1)).reshape(ends.shape).permute(1, 2, 0, 3)
    return nn.functional.pad(found, (0, -ends.shape[-1] % 16))


def _middles(jets: Tensor, width: float) -> Tensor:
    """Those polynomials in the middle of their intervals, [n_kinds, n, m1]."""
    (a, da, ca), (b, db, cb) = jets[:, :, :-1], jets[:, :, 1:]
    return 0.5 * (a + b) + (5 * width / 32) * (da - db) + (width * width / 64) * (ca + cb)


class EmbeddingTable:
    """𝒢(s) as polynomials of degree five that share value, slope and curvature with the networks.

    On an interval of width h the error of such a polynomial is at most h⁶/46080 times the largest
    sixth derivative, and largest near the middle. Intervals are halved until the largest
    difference from the networks, looked for at the middle and the quarters of every interval, is
    below half of the tolerance; ``bound`` is twice that difference.

    Args:
        networks: what is tabulated.
        last: 1/Å, largest s; the table begins at 0, the value at the cutoff and at infinity.
        tolerance: largest error of 𝒢 relative to its largest value.

    Attributes:
        bound: the stated bound of the absolute error of 𝒢.
        relative_bound: the same over the largest value of 𝒢.
        n_intervals: of every kind.
        width: 1/Å, of an interval.
        coefficients: [kinds, intervals, 6, m1 padded], float64, for the op.

    Raises:
        ValueError: for a tolerance that 65536 intervals do not reach, or a ``last`` not above zero.
    """

    _SMALLEST, _LARGEST = 16, 65536

    def __init__(self, networks: EmbeddingNetworks, last: float, tolerance: float) -> None:
        if not last > 0:
            raise ValueError(f"the table must reach to an s above zero, got {last}")
        if not tolerance > 0:
            raise ValueError(f"the table's tolerance must be above zero, got {tolerance}")
        self.last, self.tolerance = float(last), float(tolerance)
        n = self._SMALLEST
        while True:
            self.n_intervals, self.width = n, self.last / n
            with torch.no_grad():
                self.coefficients = _hermite(networks.jets(self._nodes(networks)), self.width)
                error, largest = self._deviation(networks)
            self.bound = 2 * error
            self.relative_bound = self.bound / largest
            if self.relative_bound <= self.tolerance:
                break
            if n >= self._LARGEST:
                raise ValueError(
                    f"the table does not reach the tolerance {tolerance:g}: with {n} intervals the "
                    f"error is {self.relative_bound:.1e}; ask for less"
                )
            n *= 2

    def _nodes(self, networks: EmbeddingNetworks) -> Tensor:
        device = networks.input_mean.device
        return torch.linspace(
            0, self.last, self.n_intervals + 1, dtype=torch.float64, device=device
        )

    def _deviation(self, networks: EmbeddingNetworks) -> tuple[float, float]:
        """Largest difference from the networks, and their largest value."""
        nodes = self._nodes(networks)[:-1]
        error, largest = 0.0, 1e-30
        for t in (0.25, 0.5, 0.75):
            exact = networks.values(nodes + t * self.width)
            powers = t ** torch.arange(6, dtype=torch.float64, device=nodes.device)
            found = torch.einsum("knim,i->knm", self.coefficients, powers)
            error = max(error, float((found[..., : exact.shape[-1]] - exact).abs().max()))
            largest = max(largest, float(exact.abs().max()))
        return error, largest

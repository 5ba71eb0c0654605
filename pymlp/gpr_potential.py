"""A fitted Gaussian process as a potential: the same calls and files as descriptor + networks."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pymlp import model_files, neighbors
from pymlp.descriptors import Descriptor
from pymlp.gaussian_process import (
    AtomicInputs,
    CombinedInputs,
    ConcatenatedInputs,
    GaussianProcess,
)
from pymlp.gaussian_process.prediction import evaluate
from pymlp.gaussian_process.state import from_state, moved, posterior_bytes, to_state
from pymlp.gaussian_process.training_set import equal_numbers
from pymlp.neighbors import NeighborList
from pymlp.pair_ops import sum_by_structure
from pymlp.potential import Potential, Prediction
from pymlp.structures import Batch

__all__ = ["KIND", "GaussianProcessPotential"]

#: What model.json calls it.
KIND = "Gaussian process"

#: Posteriors above this size (bytes) are left out of a saved model unless asked for.
POSTERIOR_LIMIT = 512 * 2**20


class GaussianProcessPotential(Potential):
    """Energies, forces, stress and their standard deviations from a fitted Gaussian process.

    In feature space the prediction is four matrix products; features come from the descriptor's
    op, forces from its vector-Jacobian product.

    Args:
        process: fitted, with `ConcatenatedInputs` or `AtomicInputs`, or `CombinedInputs` that begin
            with a `ConcatenatedInputs`.
        metadata: what else to keep with the model, plain JSON.
        uncertainty: whether `compute` gives standard deviations too (they cost a triangular solve
            with the whole training set per structure); without a posterior it never does.

    Raises:
        ValueError: the process is not fitted, or has other inputs.
    """

    def __init__(
        self,
        process: GaussianProcess,
        metadata: dict[str, Any] | None = None,
        uncertainty: bool = True,
    ) -> None:
        nn.Module.__init__(self)
        first: nn.Module = process.inputs
        if isinstance(first, CombinedInputs):
            first = first.parts[0]
        if not isinstance(first, (ConcatenatedInputs, AtomicInputs)):
            raise ValueError(
                "process must have the features of a descriptor as inputs, got "
                f"{type(process.inputs).__name__}"
            )
        if process.preparation is None or not process.sources:
            raise ValueError("the Gaussian process must be fitted before it can be a potential")
        self.descriptor: Descriptor = first.descriptor
        self.networks = nn.ModuleList()
        self.process = process
        self.uncertainty = uncertainty
        self.metadata = dict(metadata or {})

    @property
    def whole(self) -> bool:
        """Whether the features are those of whole structures (not a sum over atoms)."""
        return not isinstance(self.process.inputs, AtomicInputs)

    def _apply(
        self, fn: Callable[[Tensor], Tensor], recurse: bool = True
    ) -> GaussianProcessPotential:
        super()._apply(fn, recurse)
        # Weights stay in float64, whatever the precision of a prediction: only devices change.
        moved(self.process, fn(torch.zeros(())).device)
        return self

    def compute(
        self,
        batch: Batch,
        forces: bool = True,
        stress: bool | None = None,
        *,
        neighbor_list: NeighborList | None = None,
        dtype: torch.dtype | None = None,
        extrapolation: bool = False,
        spread: bool = True,
        uncertainty: bool | None = None,
    ) -> Prediction:
        """Predict energies, forces and stress (eqs 20, 22, 26, 28), and their deviations.

        Args:
            batch: B structures with A atoms, on the potential's device.
            forces: whether forces are wanted.
            stress: as in `Potential.compute`.
            neighbor_list: of this batch, at least as long as the cutoff; made here if ``None``.
            dtype: precision of features and products; the batch's own if ``None``.
            extrapolation: not known to a Gaussian process, whose standard deviation says it.
            spread: whether deviations of the forces are wanted beside those of the energies.
            uncertainty: overrides the potential's own setting.

        Returns:
            Standard deviations (eqs 21, 27, 29) are of the noise-free energies and forces.
            Atomic energies of whole-structure features are equal shares.

        Raises:
            ValueError: for unknown elements, other atoms than those of the training set
                (whole-structure features), coincident atoms, stress without a cell, extrapolation.
        """
        if extrapolation:
            raise ValueError("extrapolation is for networks; see energy_std of a Gaussian process")
        if dtype is not None:
            batch = batch.to(dtype=dtype)
        periodic = len(batch) > 0 and bool(batch.pbc.all())
        with_stress = forces and periodic if stress is None else stress
        if with_stress and not periodic:
            raise ValueError("stress needs structures that are periodic in all three directions")
        index = batch.structure_index
        with torch.no_grad():
            if neighbor_list is None:
                neighbor_list = neighbors.neighbor_list(batch, self.cutoff)
            d = neighbors.displacements(batch.positions, neighbor_list, batch.cell, index)
            types = self.descriptor.batch_types(batch)
            features = self.descriptor.features(d, neighbor_list, types)
            beside, pull_beside = self._beside(batch)
            atomic, slopes, other_slopes = self._feature_space(
                batch, features, types, beside, forces or with_stress
            )
            atomic = atomic.double() + self.process.mean.per_atom(batch)
            force, tensor = None, None
            if slopes is not None:
                pull = self.descriptor.vjp(slopes, d, neighbor_list, types)
                if forces:
                    force = neighbors.forces_from_pairs(pull, neighbor_list)
                    if pull_beside is not None:
                        force -= pull_beside(other_slopes).view_as(force)
                if with_stress:
                    tensor = neighbors.stress_from_pairs(pull, d, neighbor_list, batch.cell, index)
            energy = sum_by_structure(atomic, index, len(batch))
            deviations = None
            if self.uncertainty if uncertainty is None else uncertainty:
                deviations = self._deviations(batch, forces and spread)
        return Prediction(
            energy=energy,
            forces=force,
            stress=tensor,
            atomic_energies=atomic,
            energy_std=None if deviations is None else deviations[0],
            forces_std=None if deviations is None else deviations[1],
        )

    def _beside(
        self, batch: Batch
    ) -> tuple[Tensor | None, Callable[[Tensor | None], Tensor] | None]:
        """Features [B, p] that are not the descriptor's, and from dE/d(them) to dE/dR."""
        if not isinstance(self.process.inputs, CombinedInputs):
            return None, None
        features, pull = self.process.inputs.features_and_pullback(batch, first=1)
        return features[:, 0], pull

    def _feature_space(
        self, batch: Batch, features: Tensor, types: Tensor, beside: Tensor | None, gradient: bool
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Atomic energies without mean [A], dE/dG [A, F], and dE/d(features beside) [B, 1, p]."""
        sources, preparation = self.process.at_precision(features.dtype)
        covariance = self.process.hyperparameters.covariance
        slopes = torch.zeros_like(features) if gradient else None
        atomic = features.new_zeros(batch.n_atoms)
        if self.whole:
            for numbers, _ in equal_numbers(batch):
                preparation.types(numbers)  # refuses other atoms
            transform = preparation.transforms[0]
            raw = features.view(len(batch), -1)
            width = raw.shape[1]
            if beside is not None:
                raw = torch.cat((raw, beside), 1)
            x = transform.features(raw)
            energies, g = evaluate(sources[0], x, covariance, gradient)
            n_atoms = batch.n_atoms // max(1, len(batch))
            atomic = (energies / max(1, n_atoms)).repeat_interleave(n_atoms)
            if g is None:
                return atomic, None, None
            g = transform.gradient(g)
            slopes = g[:, :width].contiguous().view_as(features)
            return atomic, slopes, g[:, None, width:] if beside is not None else None
        for kind, items in sources.items():
            own = torch.nonzero(types == kind).squeeze(1)
            transform = preparation.transforms[kind]
            x = transform.features(features[own])
            width = x.shape[1]  # sources of all types are padded to one width
            x = nn.functional.pad(x, (0, items.x.shape[1] - width))
            atomic[own], g = evaluate(items, x, covariance, gradient)
            if slopes is not None and g is not None:
                slopes[own] = transform.gradient(g[:, :width])
        return atomic, slopes, None

    def _deviations(self, batch: Batch, forces: bool) -> tuple[Tensor, Tensor | None] | None:
        if self.process.posterior is None:
            return None
        double = batch.to(dtype=torch.float64)
        result = self.process.predict(double, forces=forces, variance=True)
        assert result.energy_std is not None
        return result.energy_std, result.forces_std

    def forward(self, batch: Batch, neighbor_list: NeighborList | None = None) -> Tensor:
        """Return energies [B] (eV); without autograd, `compute` gives the derivatives."""
        return self.compute(
            batch, forces=False, neighbor_list=neighbor_list, uncertainty=False
        ).energy

    def save(self, directory: str | Path, posterior: bool | None = None) -> None:
        """Write the model into a folder, in the format of all potentials.

        Args:
            directory: made if missing.
            posterior: whether to write what standard deviations need; ``None`` writes it where
                it takes less than 512 MiB.

        Raises:
            ValueError: if weights are NaN, or the metadata cannot be written as JSON.
            OSError: if the folder cannot be written to; an older model in it is then as it was.
        """
        if posterior is None:
            posterior = posterior_bytes(self.process) <= POSTERIOR_LIMIT
        config, tensors = to_state(self.process, posterior)
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and bool(torch.isnan(tensor).any()):
                raise ValueError(f"a model with NaN in {name} is not written")
        import numpy

        from pymlp import __version__

        description = {
            "kind": KIND,
            "elements": list(self.elements),
            "units": {"energy": "eV", "length": "Å", "forces": "eV/Å"},
            "descriptor": self.descriptor.to_config(),
            "gaussian_process": config,
            "metadata": self.metadata,
            "versions": {
                "pymlp": __version__,
                "torch": torch.__version__,
                "numpy": numpy.__version__,
                "python": platform.python_version(),
            },
        }
        # Clones: safetensors refuses tensors that share memory (equal features of two groups).
        plain = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        model_files.write_model(directory, description, plain)

    @staticmethod
    def from_description(
        description: dict[str, Any], tensors: dict[str, Tensor]
    ) -> GaussianProcessPotential:
        """Rebuild the potential from what `save` wrote.

        Raises:
            ValueError: for entries or tensors that are missing or do not fit.
        """
        if "gaussian_process" not in description:
            raise ValueError("the description has no entry 'gaussian_process'")
        process = from_state(description["gaussian_process"], tensors)
        return GaussianProcessPotential(process, description.get("metadata"))

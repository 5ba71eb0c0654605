"""A potential: descriptor and networks, from structures to energies, forces and stress."""

from __future__ import annotations

import contextlib
import importlib
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pymlp import model_files, neighbors
from pymlp.descriptors import Descriptor
from pymlp.devices import chosen_device
from pymlp.fused_networks import FusedNetworks, energies_and_slopes_to_train
from pymlp.neighbors import NeighborList
from pymlp.networks import ElementGroups, ElementNetworks, group_by_element
from pymlp.pair_ops import sum_by_structure
from pymlp.prediction import Prediction, committee_statistics
from pymlp.structures import Batch

__all__ = ["Potential", "Prediction", "load"]

#: Models of other kinds than descriptor and networks: what reads them, imported when one comes.
OTHER_KINDS = {"Gaussian process": "pymlp.gpr_potential:GaussianProcessPotential"}


class Potential(nn.Module):
    """Descriptor and a committee of networks.

    Forces need no autograd through the descriptor: with G = features(d) and v = dE/dG from the
    networks, F = -scatter(J^T v), one call of ``descriptor.vjp``. A loss on these forces
    differentiates J^T v by v alone.

    Args:
        descriptor: gives the features; where it has weights (``trainable``), a sequence gives each
            network of a committee its own.
        networks: one, or several for a committee; all for the descriptor's features and elements.
        metadata: what else to keep with the model (target, data hash, errors ...), plain JSON.

    Raises:
        ValueError: if descriptor and networks do not belong together, or there is no network.
    """

    feature_minimum: Tensor
    feature_maximum: Tensor

    def __init__(
        self,
        descriptor: Descriptor | Sequence[Descriptor],
        networks: ElementNetworks | Sequence[ElementNetworks],
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        members = [networks] if isinstance(networks, ElementNetworks) else list(networks)
        if not members:
            raise ValueError("networks must hold at least one network, got none")
        first, *others = [descriptor] if isinstance(descriptor, Descriptor) else list(descriptor)
        if others and (
            len(others) + 1 != len(members)
            or any(other.to_config() != first.to_config() for other in others)
        ):
            raise ValueError(
                f"descriptor must be one, or one of the same kind for each of {len(members)} "
                f"networks, got {len(others) + 1}"
            )
        descriptor = first
        for member in members:
            if (member.n_features, member.elements) != (descriptor.n_features, descriptor.elements):
                raise ValueError(
                    f"networks must take the descriptor's {descriptor.n_features} features of "
                    f"{descriptor.elements}, got {member.n_features} of {member.elements}"
                )
        self.descriptor = descriptor
        self.other_descriptors = nn.ModuleList(others)  # of the second network and so on
        self.networks = nn.ModuleList(members)
        self._fused: list[FusedNetworks] = []  # made at the first prediction
        self.metadata: dict[str, Any] = dict(metadata or {})
        shape = (len(descriptor.elements), descriptor.n_features)
        # Nothing seen yet: minimum above maximum.
        for name, value in (("feature_minimum", torch.inf), ("feature_maximum", -torch.inf)):
            self.register_buffer(name, torch.full(shape, value, dtype=torch.float64))

    @property
    def elements(self) -> tuple[str, ...]:
        """The elements that the potential knows."""
        return self.descriptor.elements

    @property
    def cutoff(self) -> float:
        """Å."""
        return self.descriptor.cutoff

    @property
    def n_networks(self) -> int:
        """Size of the committee."""
        return len(self.networks)

    @property
    def target_kind(self) -> str | None:
        """What the energies are: "total", "delta" (of two levels of theory), or ``None``: unknown.

        ``metadata["target"]`` is that word itself, or what a training run wrote, with it as "kind".
        """
        target = self.metadata.get("target")
        kind = target.get("kind") if isinstance(target, dict) else target
        return kind if isinstance(kind, str) else None

    @property
    def trains_on_forces(self) -> bool:
        """Whether all networks have the second derivative that a force loss needs."""
        return all(member.trains_on_forces for member in self._members)

    @property
    def _members(self) -> list[ElementNetworks]:
        return list(self.networks)  # type: ignore[arg-type]

    @property
    def _descriptors(self) -> list[Descriptor]:
        """The descriptor of each network."""
        others: list[Descriptor] = list(self.other_descriptors)  # type: ignore[arg-type]
        return [self.descriptor, *(others or [self.descriptor] * (self.n_networks - 1))]

    # -- energies and forces ----------------------------------------------------------------

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
    ) -> Prediction:
        """Predict energies, forces and stress.

        Args:
            batch: B structures with A atoms, on the potential's device.
            forces: whether forces are wanted.
            stress: ``True`` or ``False``; ``None`` computes it if forces are wanted and every
                structure is periodic in all three directions.
            neighbor_list: of this batch, at least as long as the cutoff; made here if ``None``.
            dtype: precision of positions and features; the batch's own if ``None``.
            extrapolation: whether to compare features with the range seen in training.
            spread: whether a committee's ``forces_std`` is wanted, for which the features are
                differentiated once for each network and not once for their mean.

        Returns:
            The mean over the committee; its standard deviation (n - 1) where there are several
            networks.

        Raises:
            ValueError: for unknown elements, coincident atoms, stress without a cell, or
                extrapolation without known ranges.
        """
        if dtype is not None:
            batch = batch.to(dtype=dtype)
        with_stress = forces and _all_periodic(batch) if stress is None else stress
        if with_stress and not _all_periodic(batch):
            raise ValueError("stress needs structures that are periodic in all three directions")
        index = batch.structure_index
        types = self.descriptor.batch_types(batch)
        groups = self._groups(batch, types)
        with torch.no_grad(), self._below_autograd():
            if neighbor_list is None:
                neighbor_list = neighbors.neighbor_list(batch, self.cutoff)
            d = neighbors.displacements(batch.positions, neighbor_list, batch.cell, index)
            every, pulls, features = self.evaluate(
                d,
                neighbor_list,
                types,
                groups,
                gradients=forces or with_stress,
                spread=forces and spread,
            )
            energy, energy_std, atomic, force, force_std = committee_statistics(
                every, batch, pulls if forces else None, neighbor_list
            )
            outside = self._outside(features, types) if extrapolation else None
            tensor = None
            if with_stress:
                assert pulls is not None
                pull = pulls.mean(dim=0) if len(pulls) > 1 else pulls[0]
                tensor = neighbors.stress_from_pairs(pull, d, neighbor_list, batch.cell, index)
        return Prediction(
            energy=energy,
            forces=force,
            stress=tensor,
            atomic_energies=atomic,
            energy_std=energy_std,
            forces_std=force_std,
            extrapolation=outside,
        )

    def _below_autograd(self) -> contextlib.AbstractContextManager[object]:
        """Skip the ops' autograd kernels: Python that takes 5 µs for each of a molecule's calls.

        Descriptors with weights may differentiate inside, and keep them.
        """
        if self.descriptor.trainable or torch.compiler.is_compiling():
            return contextlib.nullcontext()
        guard: contextlib.AbstractContextManager[object] = torch._C._AutoDispatchBelowAutograd()
        return guard

    def evaluate(
        self,
        displacements: Tensor,
        neighbor_list: NeighborList,
        types: Tensor,
        groups: ElementGroups | None = None,
        *,
        gradients: bool = True,
        spread: bool = True,
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Return what all predictions are made of; no control flow depends on the data.

        For ``torch.compile(fullgraph=True)`` and CUDA graphs: with displacements and forces from
        :mod:`pymlp.neighbors` it is energies and forces without autograd.

        Args:
            displacements: [P, 3] Å.
            neighbor_list: of those pairs.
            types: [A] int64.
            groups: the atoms sorted by element, from :func:`pymlp.networks.group_by_element`.
            gradients: whether dE/d(displacements) is wanted.
            spread: whether that of each network, or of their mean alone.

        Returns:
            Atomic energies [M, A] eV of M networks, dE/dd [M, P, 3] eV/Å of each ([1, P, 3] of
            their mean without ``spread``; ``None`` if not wanted), and the features [A, F] (of the
            first network's descriptor).
        """
        atomic: list[Tensor] = []
        pulls: list[Tensor] = []
        first: Tensor | None = None
        for descriptor, networks in self._parts():
            if gradients:
                features, pull = descriptor.features_and_pull(displacements, neighbor_list, types)
            else:
                features = descriptor.features(displacements, neighbor_list, types)
            first = features if first is None else first
            energies, slopes = networks.energies_and_slopes(features, types, groups, gradients)
            atomic.append(energies)
            if slopes is not None:
                mean = len(slopes) > 1 and not spread
                pulls.append(pull(slopes.mean(dim=0, keepdim=True) if mean else slopes))
        assert first is not None
        if len(atomic) == 1:
            return atomic[0], pulls[0] if gradients else None, first
        by_pair = torch.cat(pulls) if gradients else None
        if by_pair is not None and not spread:
            by_pair = by_pair.mean(dim=0, keepdim=True)
        return torch.cat(atomic), by_pair, first

    def _parts(self) -> list[tuple[Descriptor, FusedNetworks]]:
        """Each descriptor with the networks that take its features."""
        networks = self._members
        if [n for part in self._fused for n in part.networks] != networks:
            several = [[n] for n in networks] if len(self.other_descriptors) else [networks]
            self._fused = [FusedNetworks(own) for own in several]
        if len(self._fused) == 1:
            return [(self.descriptor, self._fused[0])]
        return list(zip(self._descriptors, self._fused, strict=True))

    def forward(self, batch: Batch, neighbor_list: NeighborList | None = None) -> Tensor:
        """Return energies [B] (eV), differentiable in positions, cell and weights by autograd."""
        if neighbor_list is None:
            neighbor_list = neighbors.neighbor_list(batch, self.cutoff)
        features = self.descriptor(batch, neighbor_list)
        types = self.descriptor.batch_types(batch)
        groups = None if torch.compiler.is_compiling() else self._groups(batch, types)
        atomic = torch.stack(
            [
                member(
                    features if own is self.descriptor else own(batch, neighbor_list), types, groups
                )
                for own, member in zip(self._descriptors, self._members, strict=True)
            ]
        )
        mean = atomic.mean(dim=0)
        return sum_by_structure(mean, batch.structure_index, len(batch))

    def energy_and_forces(
        self,
        batch: Batch,
        neighbor_list: NeighborList,
        create_graph: bool = False,
        *,
        features: Tensor | None = None,
        member: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return energies and forces for training: differentiable in the weights.

        Args:
            batch: B structures with A atoms.
            neighbor_list: of this batch.
            create_graph: whether a loss on the forces will be differentiated.
            features: [A, F] of this batch, where they are already known and the descriptor has no
                weights.
            member: which network; ``None`` takes the committee's mean.

        Returns:
            Energies [B] eV and forces [A, 3] eV/Å.

        Raises:
            ValueError: with ``create_graph`` if an activation has no second derivative.
        """
        chosen = slice(None) if member is None else slice(member, member + 1)
        members, descriptors = self._members[chosen], self._descriptors[chosen]
        if features is not None and self.descriptor.trainable:
            raise ValueError("features must be None: the descriptor has weights to train")
        if create_graph and not all(m.trains_on_forces for m in members):
            raise ValueError("activation relu has no second derivative: forces cannot be trained")
        index = batch.structure_index
        types = self.descriptor.batch_types(batch)
        groups = None if torch.compiler.is_compiling() else self._groups(batch, types)
        d = neighbors.displacements(
            batch.positions.detach(), neighbor_list, batch.cell.detach(), index
        )
        if features is None:
            features = self.descriptor.geometry(d, neighbor_list, types)
        geometry = features.detach()
        with torch.enable_grad():
            atomic: list[Tensor] = []
            slopes: list[Tensor] = []  # by the geometry, through each descriptor
            parts = [(self.descriptor, members)]
            if len(self.other_descriptors):
                parts = [(own, [n]) for own, n in zip(descriptors, members, strict=True)]
            for own, networks in parts:
                x, back = own.features_to_train(geometry, neighbor_list, types)
                found = [
                    energies_and_slopes_to_train(n, x, types, groups, create_graph=create_graph)
                    for n in networks
                ]
                atomic += [energies for energies, _ in found]
                slopes.append(back(torch.stack([slope for _, slope in found]).sum(dim=0)))
            slope = torch.stack(slopes).sum(dim=0) / len(members)
            mean = torch.stack(atomic).mean(dim=0)
            pull = self.descriptor.geometry_vjp(slope, d, neighbor_list, types)
            forces = neighbors.forces_from_pairs(pull, neighbor_list)
        return sum_by_structure(mean, index, len(batch)), forces

    def _groups(self, batch: Batch, types: Tensor) -> ElementGroups:
        key = ("groups", self.elements)
        if key not in batch._topology:
            batch._topology[key] = group_by_element(types, len(self.elements))
        result: ElementGroups = batch._topology[key]
        return result

    # -- extrapolation ----------------------------------------------------------------------

    @torch.no_grad()
    def record_ranges(self, features: Tensor, types: Tensor) -> None:
        """Widen the ranges of features seen in training, element by element.

        Args:
            features: [A, F].
            types: [A] int64.
        """
        for index in range(len(self.elements)):
            own = features[types == index].to(torch.float64)
            if len(own):
                low, high = own.aminmax(dim=0)
                self.feature_minimum[index] = torch.minimum(self.feature_minimum[index], low)
                self.feature_maximum[index] = torch.maximum(self.feature_maximum[index], high)

    def _outside(self, features: Tensor, types: Tensor) -> Tensor:
        if not bool((self.feature_minimum <= self.feature_maximum).any()):
            raise ValueError("the ranges of features seen in training are not known")
        # A feature may leave its range by a ten-thousandth of its width: that is rounding.
        width = (self.feature_maximum - self.feature_minimum).clamp(min=0)
        low = (self.feature_minimum - 1e-4 * width - 1e-9).index_select(0, types)
        high = (self.feature_maximum + 1e-4 * width + 1e-9).index_select(0, types)
        return ((features < low) | (features > high)).double().mean(dim=1)

    # -- files ------------------------------------------------------------------------------

    def save(self, directory: str | Path) -> None:
        """Write the model into a folder: ``model.json`` and a safetensors file, atomically.

        Raises:
            ValueError: if weights are NaN, or the metadata cannot be written as JSON.
            OSError: if the folder cannot be written to; an older model in it is then as it was.
        """
        tensors = dict(self.state_dict())
        for name, tensor in tensors.items():
            if bool(torch.isnan(tensor).any()):
                raise ValueError(f"a model with NaN in {name} is not written")
        import numpy

        from pymlp import __version__

        description = {
            "kind": "descriptor and networks",
            "elements": list(self.elements),
            "units": {"energy": "eV", "length": "Å", "forces": "eV/Å"},
            "descriptor": self.descriptor.to_config(),
            "descriptors": 1 + len(self.other_descriptors),
            "networks": [member.to_config() for member in self._members],
            "dtype": str(self._members[0].dtype).removeprefix("torch."),
            "metadata": self.metadata,
            "versions": {
                "pymlp": __version__,
                "torch": torch.__version__,
                "numpy": numpy.__version__,
                "python": platform.python_version(),
            },
        }
        model_files.write_model(directory, description, tensors)

    @staticmethod
    def load(directory: str | Path, device: torch.device | str = "cpu") -> Potential:
        """Read a model that :meth:`save` wrote; the same as :func:`pymlp.load`."""
        return load(directory, device)


def _all_periodic(batch: Batch) -> bool:
    if "all periodic" not in batch._topology:
        batch._topology["all periodic"] = len(batch) > 0 and bool(batch.pbc.all())
    return bool(batch._topology["all periodic"])


def load(directory: str | Path, device: torch.device | str = "cpu") -> Potential:
    """Read a potential from the folder that ``pymlp train`` or :meth:`Potential.save` wrote.

    Args:
        directory: the folder.
        device: where to put the potential: cpu, cuda, cuda:n, or auto.

    Returns:
        The potential, in evaluation mode; ``metadata`` holds what was saved with it.

    Raises:
        FileNotFoundError: if there is no model.
        ValueError: for an unknown format version, or files that are missing, truncated, changed or
            do not belong together; for a device that cannot be computed on.
    """
    device = chosen_device(device)
    description, tensors = model_files.read_model(directory)
    other = OTHER_KINDS.get(description.get("kind", ""))
    if other is not None:
        module, _, name = other.partition(":")
        kind = getattr(importlib.import_module(module), name)
        try:
            return kind.from_description(description, tensors).to(device)
        except ValueError as error:
            raise ValueError(f"{directory}/{model_files.DESCRIPTION}: {error}") from None
    try:
        dtype = {"float32": torch.float32, "float64": torch.float64}[description["dtype"]]
        descriptors = [
            Descriptor.from_config(description["descriptor"]).to(dtype)
            for _ in range(description.get("descriptors", 1))
        ]
        networks = [
            ElementNetworks.from_config(config, dtype) for config in description["networks"]
        ]
        potential = Potential(descriptors, networks, description["metadata"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{directory}/{model_files.DESCRIPTION} is damaged: missing or wrong entry {error}"
        ) from None
    except ValueError as error:
        raise ValueError(f"{directory}/{model_files.DESCRIPTION}: {error}") from None
    expected = potential.state_dict()
    for name, tensor in expected.items():
        if name not in tensors or tensors[name].shape != tensor.shape:
            got = list(tensors[name].shape) if name in tensors else "none"
            raise ValueError(
                f"{directory}: the weights do not fit the description: {name} must have shape "
                f"{list(tensor.shape)}, got {got}"
            )
    unknown = sorted(set(tensors) - set(expected))
    if unknown:
        raise ValueError(f"{directory}: the weights hold {unknown}, which no part of it has")
    potential.load_state_dict(tensors)
    return potential.requires_grad_(False).eval().to(device)

"""Who is timed on a workload: this package, plain PyTorch, TorchANI, DScribe.

A peer that is not installed is left out, and the run says so. Every contestant gets positions and
returns features or a derivative; lists of neighbours are made inside the timed call unless the
name says otherwise.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from typing import Any

import ase
import numpy as np
import torch
from torch import Tensor

from benchmarks.plain_torch import PlainParameters, PlainSymmetryFunctions
from benchmarks.workloads import Workload
from pymlp import Batch, displacements, neighbor_list
from pymlp.benchmarking import Contestant, derivatives, ours
from pymlp.descriptors import ANI, BehlerParrinello
from pymlp.descriptors.base import Descriptor
from pymlp.descriptors.symmetry_parameters import Channels
from tests.cases import ANI1X, BP_ANGULAR, BP_RADIAL

os.environ.setdefault("TORCHANI_NO_WARN_EXTENSIONS", "1")

ANI_ELEMENTS = [1, 6, 7, 8]
BP_ELEMENTS = [1, 6, 8]


def installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def missing(*packages: str) -> list[str]:
    """A sentence for each peer that is not installed."""
    return [
        f"{package} is not installed and is skipped (pip install pymlp[bench])."
        for package in packages
        if not installed(package)
    ]


def direction(shape: tuple[int, ...] | torch.Size, seed: int, dtype: torch.dtype) -> Tensor:
    """The same cotangents or tangents for every contestant."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def own_positions(workload: Workload, dtype: torch.dtype) -> Tensor:
    """A copy, since contestants ask for gradients in theirs."""
    return workload.positions.to(dtype, copy=True)


def batch_of(workload: Workload, dtype: torch.dtype) -> Batch:
    positions, cell = own_positions(workload, dtype), workload.cell
    return Batch.from_arrays(workload.numbers, positions, cell=cell, pbc=cell is not None)


def ani_descriptor(channels: Channels = "element") -> Descriptor:
    """ANI-1x with TorchANI's prefactors, so that all contestants compute the same numbers."""
    if channels == "element":
        return ANI.like_torchani("1x")
    radial, angular = ANI1X["radial"], ANI1X["angular"]
    return ANI(
        ["H", "C", "N", "O"],
        radial_eta=radial[0][0],
        radial_shifts=[row[1] for row in radial],
        zeta=angular[0][2],
        theta_shifts=sorted({term[3] for term in angular}),
        angular_eta=angular[0][0],
        angular_shifts=sorted({term[1] for term in angular}),
        radial_cutoff=ANI1X["cutoffs"][0],
        angular_cutoff=ANI1X["cutoffs"][1],
        channels=channels,
        cos_scale=0.95,
        radial_prefactor=0.25,
    )


def bp_descriptor(channels: Channels = "element") -> Descriptor:
    """The paper's Behler-Parrinello set for H, C, O."""
    return BehlerParrinello(
        ["H", "C", "O"],
        radial=[(eta, shift) for eta, shift, _ in BP_RADIAL],
        angular=[(term[0], term[1], term[2]) for term in BP_ANGULAR if term],
        cutoff=6.0,
        channels=channels,
    )


def pymlp_contestant(
    descriptor: Descriptor,
    workload: Workload,
    dtype: torch.dtype,
    name: str = "pymlp",
    keep_list: bool = False,
) -> Contestant:
    batch = batch_of(workload, dtype)
    g = direction((workload.n_atoms, descriptor.n_features), 1, dtype)
    u = direction((workload.n_atoms, 3), 2, dtype)
    kept = neighbor_list(batch, descriptor.cutoff) if keep_list else None
    return Contestant(name, ours(descriptor, batch, g, u, kept))


def pymlp_op(descriptor: Descriptor, workload: Workload, dtype: torch.dtype) -> Contestant:
    """The ops alone: displacements in, features or pair gradients out."""
    batch = batch_of(workload, dtype)
    near = neighbor_list(batch, descriptor.cutoff)
    d = displacements(batch.positions, near, batch.cell, batch.structure_index)
    types = descriptor.types(batch.numbers)
    g = direction((workload.n_atoms, descriptor.n_features), 1, dtype)

    def both() -> Tensor:
        descriptor.features(d, near, types)
        return descriptor.vjp(g, d, near, types)

    return Contestant(
        "pymlp, op alone", {"fwd": lambda: descriptor.features(d, near, types), "grad": both}
    )


def pymlp_jacobian(descriptor: Descriptor, workload: Workload, dtype: torch.dtype) -> Contestant:
    batch = batch_of(workload, dtype)
    return Contestant("pymlp", {"jacobian": lambda: descriptor.jacobian(batch)})


# -- plain PyTorch --------------------------------------------------------------------------------


def plain_parameters(family: str, dtype: torch.dtype) -> PlainParameters:
    ani = family == "ani"
    radial = torch.tensor(ANI1X["radial"] if ani else BP_RADIAL, dtype=dtype)
    angular = torch.tensor(ANI1X["angular"] if ani else BP_ANGULAR, dtype=dtype)
    cutoffs = ANI1X["cutoffs"] if ani else (6.0, 6.0)
    return PlainParameters(
        ani=ani,
        radial_eta=radial[:, 0],
        radial_shift=radial[:, 1],
        radial_prefactor=float(radial[0, 2]),
        angular_eta=angular[:, 0],
        angular_shift=angular[:, 1],
        zeta=angular[:, -2],
        theta_shift=angular[:, -1],
        radial_cutoff=cutoffs[0],
        angular_cutoff=cutoffs[1],
        cos_scale=0.95 if ani else 1.0,
    )


def plain_contestant(
    family: str, workload: Workload, dtype: torch.dtype, channels: str
) -> Contestant:
    elements = ANI_ELEMENTS if family == "ani" else BP_ELEMENTS
    species = None
    if channels == "element":
        species = torch.tensor([elements.index(z) for z in workload.numbers.tolist()])
    compute = PlainSymmetryFunctions(plain_parameters(family, dtype), species, len(elements))
    positions = own_positions(workload, dtype).requires_grad_()
    with torch.no_grad():
        n_features = compute(positions[:1]).shape[1]
    g = direction((workload.n_atoms, n_features), 1, dtype)
    u = direction((workload.n_atoms, 3), 2, dtype).reshape(positions.shape)
    runs = derivatives(lambda: compute(positions), positions, g, u)
    lesson = "PyTorch, element channels" if species is not None else "PyTorch, as in the lessons"
    return Contestant(lesson, runs)


# -- TorchANI -------------------------------------------------------------------------------------


def torchani_computer(dtype: torch.dtype, neighborlist: str = "all_pairs") -> Any:
    """TorchANI's AEV computer; its float32 parameters made exact, so that float64 is float64."""
    import torchani

    computer = torchani.aev.AEVComputer.like_1x(neighborlist=neighborlist).to(dtype)
    exact = {
        "radial.shifts": [row[1] for row in ANI1X["radial"]],
        "angular.shifts": sorted({term[1] for term in ANI1X["angular"]}),
        "angular.sections": sorted({term[3] for term in ANI1X["angular"]}),
    }
    for name, values in exact.items():
        computer.get_buffer(name).copy_(torch.tensor(values, dtype=dtype))
    return computer


def torchani_contestants(workload: Workload, dtype: torch.dtype) -> list[Contestant]:
    """TorchANI's pure-torch AEVs: eager, and scripted (torch.compile is several times slower).

    Molecules: all pairs of the whole batch at once. Periodic: its cell list.
    """
    if not installed("torchani"):
        return []
    periodic = workload.cell is not None
    lists = "cell_list" if periodic else "all_pairs"
    eager = torchani_computer(dtype, lists)
    species = torch.tensor([ANI_ELEMENTS.index(z) for z in workload.numbers.tolist()])
    species = species.expand(workload.n_structures, -1).contiguous()
    cell = workload.cell.to(dtype) if workload.cell is not None else None
    pbc = torch.ones(3, dtype=torch.bool) if periodic else None
    positions = own_positions(workload, dtype).requires_grad_()
    g = direction((workload.n_atoms, eager.out_dim), 1, dtype)
    g = g.reshape(*species.shape, eager.out_dim)
    u = direction((workload.n_atoms, 3), 2, dtype).reshape(positions.shape)
    found = [("TorchANI", eager)]
    if not periodic:
        found.append(("TorchANI, scripted", torch.jit.script(eager)))

    def features(computer: Any) -> Callable[[], Tensor]:
        return lambda: computer(species, positions, cell, pbc)

    return [
        Contestant(name, derivatives(features(computer), positions, g, u))
        for name, computer in found
    ]


def torchani_jacobian(workload: Workload, dtype: torch.dtype) -> Contestant | None:
    """dG/dR [B, N, F, N, 3] by forward mode: one copy of a molecule per coordinate, one jvp."""
    if not installed("torchani"):
        return None
    computer = torchani_computer(dtype)
    n_atoms = workload.numbers.numel()
    species = torch.tensor([ANI_ELEMENTS.index(z) for z in workload.numbers.tolist()])
    species = species.expand(3 * n_atoms, -1).contiguous()
    tangents = torch.eye(3 * n_atoms, dtype=dtype).reshape(3 * n_atoms, n_atoms, 3)
    positions = workload.positions.to(dtype)

    def run() -> Tensor:
        blocks = []
        for molecule in positions:
            copies = molecule.expand(3 * n_atoms, n_atoms, 3).contiguous()
            slopes = torch.func.jvp(lambda x: computer(species, x), (copies,), (tangents,))[1]
            blocks.append(slopes.reshape(n_atoms, 3, n_atoms, -1).permute(2, 3, 0, 1))
        return torch.stack(blocks)

    return Contestant("TorchANI, forward mode", {"jacobian": run})


# -- DScribe --------------------------------------------------------------------------------------


def dscribe_contestant(workload: Workload, jacobian: bool = False) -> Contestant | None:
    """ACSF with the paper's set (its G1 is our eta = 0); float64 only."""
    if not installed("dscribe"):
        return None
    from dscribe.descriptors import ACSF  # type: ignore[import-untyped]

    acsf = ACSF(
        r_cut=6.0,
        species=["H", "C", "O"],
        g2_params=[[eta, shift] for eta, shift, _ in BP_RADIAL if eta],
        g4_params=[
            [term[0], term[1], 1 if term[2] == 0 else -1] for term in BP_ANGULAR if term is not None
        ],
        periodic=workload.cell is not None,
    )
    cell = None if workload.cell is None else workload.cell.numpy()
    systems = [
        ase.Atoms(workload.numbers.numpy(), x, cell=cell, pbc=cell is not None)
        for x in workload.positions.numpy()
    ]
    # DScribe's pairs of elements: (0,0) (1,0) (1,1) (2,0) (2,1) (2,2); ours by the smaller first
    pairs = [(0, 0), (1, 0), (2, 0), (1, 1), (2, 1), (2, 2)]
    n_radial, n_angular = len(BP_RADIAL) * 3, len(BP_ANGULAR)
    order = list(range(n_radial))
    for high, low in pairs:
        start = n_radial + (high * (high + 1) // 2 + low) * n_angular
        order += range(start, start + n_angular)

    def fwd() -> Tensor:
        features = np.concatenate([acsf.create(system) for system in systems])
        return torch.as_tensor(features)[:, order]

    def slopes() -> Tensor:
        found = [
            acsf.derivatives(system, attach=True, return_descriptor=False) for system in systems
        ]
        # [B, N centres, N moved, 3, F] -> [B, N, F, N, 3]
        return torch.as_tensor(np.stack(found)).permute(0, 1, 4, 2, 3)[:, :, order]

    return Contestant("DScribe", {"jacobian": slopes} if jacobian else {"fwd": fwd})

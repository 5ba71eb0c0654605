"""Makes the butane data set: a relaxed scan of the C–C–C–C torsion with GFN2-xTB.

Run as ``python -m pymlp.data.butane -o butane_gfn2.npz``; needs the ``data`` extra (tblite) and a
minute. From the trans conformer the torsion goes both ways in steps, everything else relaxes.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.constraints import FixInternals
from ase.geometry.analysis import Analysis
from ase.optimize import BFGS

from pymlp.data.archives import write_npz
from pymlp.data.gfn2 import GFN2, gfn2_calculator
from pymlp.units import HARTREE, KCAL_MOL

__all__ = ["CARBONS", "main", "scan"]

#: The four carbon atoms in the order of the chain.
CARBONS = (0, 1, 2, 3)


def trans_butane() -> Atoms:
    """ASE's trans-butane with the carbon atoms first, in the order of the chain."""
    atoms = molecule("trans-butane")
    carbons = [atom.index for atom in atoms if atom.symbol == "C"]
    bonded = Analysis(atoms).all_bonds[0]
    neighbors = {i: [j for j in bonded[i] if j in carbons] for i in carbons}
    chain = [next(i for i in carbons if len(neighbors[i]) == 1)]
    while len(chain) < len(carbons):
        chain.append(next(j for j in neighbors[chain[-1]] if j not in chain))
    rest = [atom.index for atom in atoms if atom.index not in chain]
    return atoms[chain + rest]


def scan(step: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Relax butane at fixed torsions 0, step, ..., 360 degrees.

    Every relaxation starts from its neighbour's result, turned by one step.

    Args:
        step: degrees; must divide 180.

    Returns:
        atomic numbers [14], torsions [n] (degrees) and positions [n, 14, 3] (Å).

    Raises:
        ValueError: the step does not divide 180.
        RuntimeError: a relaxation does not converge.
    """
    count = round(180 / step)
    if count < 1 or abs(count * step - 180) > 1e-9:
        raise ValueError(f"step: expected a divisor of 180 degrees, got {step}")
    start = trans_butane()
    # What turns with the last carbon: itself and all atoms bonded to the last two.
    bonded = Analysis(start).all_bonds[0]
    turned = sorted({3, *bonded[2], *bonded[3]} - {1, 2})
    found: dict[float, np.ndarray] = {}
    for sign in (-1, 1):
        atoms = start.copy()
        for number in range(count + 1):
            torsion = 180 + sign * step * number
            atoms.set_constraint()
            atoms.set_dihedral(*CARBONS, torsion, indices=turned)
            atoms.set_constraint(FixInternals(dihedrals_deg=[[torsion, list(CARBONS)]]))
            atoms.calc = gfn2_calculator(0.01)
            if not BFGS(atoms, logfile=None).run(fmax=1e-3, steps=500):
                raise RuntimeError(f"the relaxation at {torsion} degrees did not converge")
            found[torsion] = atoms.positions - atoms.get_center_of_mass()
    torsions = sorted(found)
    return start.numbers, np.array(torsions), np.array([found[t] for t in torsions])


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m pymlp.data.butane", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("-o", "--output", type=Path, required=True, help="npz file to write")
    parser.add_argument("--step", type=float, default=5.0, help="degrees (5)")
    options = parser.parse_args(arguments)
    os.environ["OMP_NUM_THREADS"] = "1"  # the matrices are too small for more
    numbers, torsions, positions = scan(options.step)
    labels = GFN2(numbers).labels(positions)
    write_npz(options.output, numbers=numbers, **labels, torsion=torsions)
    print(f"wrote {len(torsions)} structures to {options.output}")
    barrier = float(np.ptp(labels["energy"])) * HARTREE / KCAL_MOL
    print(f"highest minus lowest energy: {barrier:.2f} kcal/mol")
    return 0


if __name__ == "__main__":
    sys.exit(main())

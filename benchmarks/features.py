"""Features and their derivatives: this package beside its peers.

``python -m benchmarks.features --out benchmarks/results/NAME.json``; see README.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

import torch

from benchmarks import checks
from benchmarks import contestants as who
from benchmarks.workloads import claisen, water
from pymlp.benchmarking import Contestant, Measurement, measure, print_table, save

DTYPES = {"float32": torch.float32, "float64": torch.float64}
#: peers run on systems smaller than this: beyond, they take too much memory
PEER_ATOMS = 20_000


def keep(contestants: Sequence[Contestant | None], quantities: Sequence[str]) -> list[Contestant]:
    """Contestants that exist, with the wanted quantities only."""
    return [
        Contestant(c.name, {name: run for name, run in c.runs.items() if name in quantities})
        for c in contestants
        if c is not None
    ]


def ani_molecules(options: argparse.Namespace, dtype: str, threads: int) -> list[Measurement]:
    """ANI-1x, a batch of Claisen structures."""
    work, kind = claisen(options.structures), DTYPES[dtype]
    contestants = keep(
        [
            who.pymlp_contestant(who.ani_descriptor(), work, kind),
            who.pymlp_contestant(who.ani_descriptor(), work, kind, "pymlp, list kept", True),
            who.pymlp_contestant(who.ani_descriptor("none"), work, kind, "pymlp, no channels"),
            *who.torchani_contestants(work, kind),
            who.plain_contestant("ani", work, kind, "none"),
            who.plain_contestant("ani", work, kind, "element"),
        ],
        options.quantities,
    )
    check = checks.molecule_check("ani", work, kind)
    return measure(
        f"ANI-1x, {work.name}",
        contestants,
        work.n_structures,
        dtype=dtype,
        n_threads=threads,
        check=check,
        rounds=options.rounds,
        budget_s=options.budget,
    )


def bp_molecules(options: argparse.Namespace, dtype: str, threads: int) -> list[Measurement]:
    """The paper's Behler-Parrinello set, a batch of Claisen structures."""
    work, kind = claisen(options.structures), DTYPES[dtype]
    contestants = keep(
        [
            who.pymlp_contestant(who.bp_descriptor(), work, kind),
            who.pymlp_contestant(who.bp_descriptor("none"), work, kind, "pymlp, no channels"),
            who.plain_contestant("behler_parrinello", work, kind, "none"),
            who.plain_contestant("behler_parrinello", work, kind, "element"),
            who.dscribe_contestant(work) if dtype == "float64" and threads == 1 else None,
        ],
        options.quantities,
    )
    return measure(
        f"BP, {work.name}",
        contestants,
        work.n_structures,
        dtype=dtype,
        n_threads=threads,
        check=checks.molecule_check("behler_parrinello", work, kind),
        rounds=options.rounds,
        budget_s=options.budget,
    )


def latency(options: argparse.Namespace, dtype: str, threads: int) -> list[Measurement]:
    """One molecule: what a step of molecular dynamics waits for."""
    if threads > 1:
        return []
    work, kind = claisen(1), DTYPES[dtype]
    contestants = keep(
        [
            who.pymlp_contestant(who.ani_descriptor(), work, kind),
            who.pymlp_contestant(who.ani_descriptor(), work, kind, "pymlp, list kept", True),
            *who.torchani_contestants(work, kind),
        ],
        [name for name in options.quantities if name != "hvp"],
    )
    rows = measure(
        "ANI-1x, one molecule",
        contestants,
        1,
        dtype=dtype,
        check=checks.molecule_check("ani", work, kind),
        rounds=options.rounds,
        budget_s=options.budget,
    )
    # pair gradients are not position gradients: timed only, the ops have tests of their own
    op = keep([who.pymlp_op(who.ani_descriptor(), work, kind)], options.quantities)
    return rows + measure("ANI-1x, one molecule", op, 1, dtype=dtype, rounds=options.rounds)


def jacobians(options: argparse.Namespace, dtype: str, threads: int) -> list[Measurement]:
    """Dense dG/dR of every molecule, as force-trained Gaussian processes need it; float64."""
    if dtype != "float64" or threads > 1:
        return []
    kind, rows = DTYPES[dtype], []
    ani, bp = claisen(16), claisen(4)
    for name, work, contestants in (
        (
            "ANI-1x",
            ani,
            [
                who.pymlp_jacobian(who.ani_descriptor(), ani, kind),
                who.torchani_jacobian(ani, kind),
            ],
        ),
        (
            "BP",
            bp,
            [
                who.pymlp_jacobian(who.bp_descriptor(), bp, kind),
                who.dscribe_contestant(bp, jacobian=True),
            ],
        ),
    ):
        rows += measure(
            f"{name}, {work.name}",
            keep(contestants, ["jacobian"]),
            work.n_structures,
            dtype=dtype,
            # DScribe differentiates numerically
            check=checks.same_as_first(torch.float32 if name == "BP" else kind),
            rounds=options.rounds,
            budget_s=options.budget,
        )
    return rows


def periodic(n_atoms: int) -> Callable[[argparse.Namespace, str, int], list[Measurement]]:
    """Periodic water, list included; peers only where they fit into memory."""

    def run(options: argparse.Namespace, dtype: str, threads: int) -> list[Measurement]:
        work, kind = water(n_atoms), DTYPES[dtype]
        quantities = [name for name in options.quantities if name != "hvp"]
        peers = who.torchani_contestants(work, kind) if n_atoms < options.peer_atoms else []
        contestants = keep(
            [
                who.pymlp_contestant(who.ani_descriptor(), work, kind),
                who.pymlp_contestant(who.ani_descriptor(), work, kind, "pymlp, list kept", True),
                *peers,
            ],
            quantities,
        )
        return measure(
            f"ANI-1x, {work.name}",
            contestants,
            n_atoms,
            "atom",
            dtype=dtype,
            n_threads=threads,
            check=checks.periodic_check("ani", work, kind),
            rounds=options.rounds,
            budget_s=options.budget,
        )

    return run


PARTS: dict[str, Callable[[argparse.Namespace, str, int], list[Measurement]]] = {
    "ani": ani_molecules,
    "bp": bp_molecules,
    "latency": latency,
    "jacobian": jacobians,
    "water99": periodic(99),
    "water999": periodic(999),
    "water9999": periodic(9_999),
    "water99999": periodic(99_999),
}


def compare(
    sizes: Sequence[int], structures: int, rounds: int, budget: float = 20.0
) -> tuple[list[Measurement], list[str]]:
    """What ``pymlp benchmark --report`` shows beside this package: float32 on one thread.

    Returns rows, and sentences on who was left out.
    """
    options = argparse.Namespace(
        structures=structures,
        quantities=["fwd", "grad", "train"],
        rounds=rounds,
        budget=budget,
        peer_atoms=PEER_ATOMS,
    )
    rows = [
        row
        for part in (ani_molecules, bp_molecules, latency)
        for row in part(options, "float32", 1)
    ]
    options.quantities = ["fwd", "grad"]
    rows += [row for size in sizes for row in periodic(size)(options, "float32", 1)]
    notes = who.missing("torchani")
    if not notes and max(sizes, default=0) >= PEER_ATOMS:
        notes = [f"TorchANI is skipped from {PEER_ATOMS} atoms on (memory)."]
    return rows, notes


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.features", description=__doc__)
    parser.add_argument("--out", help="JSON file for the result")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--structures", type=int, default=256, help="Claisen structures per batch")
    parser.add_argument(
        "--quantities", nargs="+", default=["fwd", "grad", "train", "hvp", "jacobian"]
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--budget", type=float, default=20.0, help="seconds per comparison")
    parser.add_argument(
        "--peer-atoms", type=int, default=PEER_ATOMS, help="larger systems are run by pymlp alone"
    )
    options = parser.parse_args(arguments)
    for note in who.missing("torchani", "dscribe"):
        print(note)
    rows: list[Measurement] = []
    for part in options.only:
        for dtype in options.dtypes:
            for threads in options.threads:
                new = PARTS[part](options, dtype, threads)
                rows += new
                if new:
                    print_table(new)
                if options.out:  # after every part, so that an interrupted run leaves something
                    save(options.out, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())

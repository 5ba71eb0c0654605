"""The shipped data: what the files hold, and that it is physics; the scripts that made them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pymlp import data
from pymlp.data.archives import claim_folder, read_npz, write_npz
from pymlp.data.label import coverage_order, label
from pymlp.data.label import main as label_main
from pymlp.units import BOHR, HARTREE, KCAL_MOL

SHIPPED = [name for name in data.FILES if (Path(data.__file__).parent / name).is_file()]
WITH_DFT = [name for name in SHIPPED if "_dft" in name]
# Bonds of C1=C2–O3–C4–C5=C6 and its hydrogens that neither break nor form.
CLAISEN_BONDS = [(0, 1), (1, 2), (3, 4), (4, 5), (0, 6), (0, 7), (1, 8), (3, 9), (3, 10), (4, 11)]
CLAISEN_BONDS += [(5, 12), (5, 13)]


#: The C-O bond that breaks and the C-C bond that forms.
PAIRS = ((3, 2), (0, 5))


def xi(coordinates: np.ndarray) -> np.ndarray:
    def distance(i: int, j: int) -> np.ndarray:
        return np.linalg.norm(coordinates[:, i] - coordinates[:, j], axis=-1)

    return distance(3, 2) - distance(0, 5)


def test_the_own_files_are_shipped_and_small() -> None:
    assert set(SHIPPED) == set(data.FILES)
    folder = Path(data.__file__).parent
    assert sum((folder / name).stat().st_size for name in SHIPPED) < 3_000_000
    assert (folder / "claisen_gfn2.npz").stat().st_size < 2_000_000
    assert {path.name for path in folder.glob("*.npz")} <= set(data.FILES)
    assert data.claisen_path() == folder / "claisen_gfn2.npz"
    assert len(data.listing().splitlines()) == len(SHIPPED)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"butane_gfn2\.npz"):
        data.data_file("water.npz")


@pytest.mark.parametrize("name", SHIPPED)
def test_shapes_types_and_ranges(name: str) -> None:
    arrays = read_npz(data.data_file(name))
    count = len(arrays["coordinates"])
    assert sorted(arrays["numbers"].tolist())[:8] == [1] * 8
    for suffix in ("", "_sqm") if name in WITH_DFT else ("",):
        energy, gradient = arrays["energy" + suffix], arrays["gradient" + suffix]
        assert energy.shape == (count,)
        assert energy.dtype == np.float64
        assert gradient.shape == arrays["coordinates"].shape == (count, 14, 3)
        assert gradient.dtype == arrays["coordinates"].dtype == np.float32
        assert np.isfinite(energy).all()
        assert np.isfinite(gradient).all()
        # Thermal structures of one molecule lie within 2.5 eV; in any other unit they would not.
        assert 0.1 < np.ptp(energy) * HARTREE < 4
        # A molecule feels no net force and no net torque. Semi-empirical gradients are exact; those
        # of DFT carry the error of a finite grid.
        slack = 1e-6 if suffix or name not in WITH_DFT else 1e-3
        assert np.abs(gradient.sum(axis=1)).max() < slack
        torque = np.cross(arrays["coordinates"], gradient).sum(axis=1)
        assert np.abs(torque).max() < 5 * slack


@pytest.mark.parametrize("name", [name for name in SHIPPED if "claisen" in name])
def test_claisen_structures_are_the_molecule(name: str) -> None:
    coordinates = read_npz(data.data_file(name))["coordinates"].astype(float)
    distances = np.linalg.norm(coordinates[:, :, None] - coordinates[:, None], axis=-1)
    distances += 10 * np.eye(14)
    assert distances.min() > 0.85
    for i, j in CLAISEN_BONDS:
        assert distances[:, i, j].max() < (1.75 if j < 6 else 1.45), (i, j)
    # The chain is never torn: at least one of the two bonds in question is there, stretched at
    # most as far as in the transition state.
    assert np.minimum(distances[:, 2, 3], distances[:, 0, 5]).max() < 2.6


def test_claisen_covers_the_path_in_every_part_of_the_split() -> None:
    arrays = read_npz(data.claisen_path())
    values = xi(arrays["coordinates"].astype(float))
    assert len(values) == 2000
    edges = np.linspace(-3.4, 2.7, 16)
    for part in (values[:200], values[200:-200], values[-200:]):
        assert np.histogram(part, edges)[0].min() >= 3
    centers = np.array([values[arrays["window"] == w].mean() for w in range(50)])
    assert (np.diff(centers) > 0).all()
    assert len({*zip(arrays["window"].tolist(), arrays["frame"].tolist(), strict=True)}) == 2000


def test_dft_labels_cover_the_path_in_every_part_of_the_split() -> None:
    """The parts are those of the lessons."""
    arrays = read_npz(data.claisen_dft_path())
    assert (np.bincount(arrays["window"], minlength=50) == 16).all()
    values = xi(arrays["coordinates"].astype(float))
    edges = np.linspace(-3.4, 2.7, 9)
    for part in (values[:80], values[80:-120], values[-120:]):
        assert np.histogram(part, edges)[0].min() >= 3
    # What makes Δ-learning worth it: the difference varies less than half as much.
    assert np.std(arrays["energy"] - arrays["energy_sqm"]) < 0.5 * np.std(arrays["energy"])


def test_reaction_path_has_its_three_stationary_points() -> None:
    path = read_npz(data.claisen_irc_path())
    saddle = int(path["ts_index"])
    energy = (path["energy"] - path["energy"][0]) * HARTREE / KCAL_MOL
    assert energy.argmax() == saddle
    assert energy[saddle] == pytest.approx(19.8, abs=0.1)
    assert energy[-1] == pytest.approx(-9.4, abs=0.1)
    assert (np.diff(energy[: saddle + 1]) > -1e-3).all()
    assert (np.diff(energy[saddle:]) < 1e-3).all()
    np.testing.assert_allclose(path["xi"], xi(path["coordinates"].astype(float)), atol=1e-6)
    assert path["arc_length"][saddle] == 0
    assert (np.diff(path["arc_length"]) > 0).all()
    assert path["xi"][saddle] == pytest.approx(-0.348, abs=0.01)
    assert (path["ts_frequencies"] < 0).sum() == 1
    assert path["ts_frequencies"][0] == pytest.approx(-494, abs=3)
    for point in (0, saddle, -1):
        assert np.abs(path["gradient"][point]).max() < 5e-5


def test_dft_has_stationary_points_of_its_own() -> None:
    points = read_npz(data.claisen_stationary_dft_path())
    barrier, reaction = (points["energy"][1:] - points["energy"][0]) * HARTREE / KCAL_MOL
    assert barrier == pytest.approx(27.4, abs=0.1)  # 27.2 in the literature, a larger basis
    assert reaction == pytest.approx(-17.9, abs=0.1)
    assert np.abs(points["gradient"]).max() * HARTREE / BOHR < 5e-3
    assert np.abs(points["gradient_sqm"][1]).max() * HARTREE / BOHR > 0.1  # none of GFN2's
    np.testing.assert_allclose(points["xi"], xi(points["coordinates"].astype(float)), atol=1e-6)
    # a looser transition state than GFN2's, between the same two molecules
    path = read_npz(data.claisen_irc_path())["coordinates"].astype(float)
    lengths = [np.linalg.norm(p[i] - p[j]) for p in points["coordinates"][1:2] for i, j in PAIRS]
    assert lengths == pytest.approx([1.90, 2.31], abs=0.02)
    for row in (0, -1):
        np.testing.assert_allclose(
            [np.linalg.norm(points["coordinates"][row][i] - points["coordinates"][row][j])
             for i, j in PAIRS],
            [np.linalg.norm(path[row][i] - path[row][j]) for i, j in PAIRS],
            atol=0.12,
        )  # fmt: skip


@pytest.mark.parametrize("name", [name for name in SHIPPED if "irc" in name])
def test_gradients_are_derivatives_of_the_energies(name: str) -> None:
    """Along the reaction path, by the trapezoidal rule with its end correction left out."""
    path = read_npz(data.data_file(name))
    for suffix in ("", "_sqm") if name in WITH_DFT else ("",):
        # Relaxed ends are further off than one step; leave them out.
        coordinates = path["coordinates"].astype(float)[1:-1] / BOHR
        gradient, energy = path["gradient" + suffix].astype(float), path["energy" + suffix]
        gradient, energy = gradient[1:-1], energy[1:-1]
        steps = np.diff(coordinates, axis=0)
        work = ((gradient[1:] + gradient[:-1]) / 2 * steps).sum(axis=(1, 2))
        # The rule is off by the third derivative: 2.5 % of the largest step in energy at most. A
        # wrong unit, sign or geometry is off by all of it.
        assert np.abs(work - np.diff(energy)).max() < 0.04 * np.abs(np.diff(energy)).max()


def test_butane_torsion_has_its_conformers() -> None:
    arrays = read_npz(data.butane_path())
    energy = (arrays["energy"] - arrays["energy"].min()) * HARTREE / KCAL_MOL
    torsion = arrays["torsion"]
    np.testing.assert_allclose(torsion, np.arange(0, 361, 5))
    assert torsion[energy.argmin()] == 180
    np.testing.assert_allclose(energy, energy[::-1], atol=1e-3)
    minima = torsion[1:-1][(energy[1:-1] < energy[:-2]) & (energy[1:-1] <= energy[2:])]
    assert len(minima) == 3
    np.testing.assert_allclose(minima, [65, 180, 295], atol=6)  # gauche, trans, gauche
    bonds = np.diff(arrays["coordinates"][:, :4].astype(float), axis=1)
    lengths = np.linalg.norm(bonds, axis=-1)
    assert (lengths > 1.5).all()
    assert (lengths < 1.57).all()


@pytest.mark.parametrize("name", [name for name in WITH_DFT if "stationary" not in name])
def test_dft_file_is_a_part_of_the_gfn2_file(name: str) -> None:
    part = read_npz(data.data_file(name))
    whole = read_npz(data.data_file(name.replace("_dft", "_gfn2")))
    index = part["index"]
    assert (np.diff(index) > 0).all()
    np.testing.assert_array_equal(part["coordinates"], whole["coordinates"][index])
    np.testing.assert_array_equal(part["energy_sqm"], whole["energy"][index])
    np.testing.assert_array_equal(part["gradient_sqm"], whole["gradient"][index])
    if "irc" in name:  # on the path, GFN2's gradients of the stiff bonds vanish
        return
    # The two levels agree on what a stiff bond is, hence on most of every thermal gradient.
    correlation = np.corrcoef(part["gradient"].ravel(), part["gradient_sqm"].ravel())[0, 1]
    assert correlation > 0.9


def test_gfn2_labels_are_reproduced() -> None:
    pytest.importorskip("tblite", reason="tblite (extra 'data') is not installed")
    from pymlp.data.gfn2 import GFN2

    arrays = read_npz(data.claisen_path())
    again = GFN2(arrays["numbers"]).labels(arrays["coordinates"][[0, -1]])
    # 1e-6 Hartree: tblite's own convergence; versions of it differ by less.
    np.testing.assert_allclose(again["energy"], arrays["energy"][[0, -1]], rtol=0, atol=1e-6)
    np.testing.assert_allclose(again["gradient"], arrays["gradient"][[0, -1]], atol=1e-5)


def test_sampling_resumes_to_the_same_bits(tmp_path: Path) -> None:
    pytest.importorskip("tblite", reason="tblite (extra 'data') is not installed")
    shutil.copy(data.claisen_irc_path(), tmp_path / "small_irc_gfn2.npz")
    output = tmp_path / "small_gfn2.npz"
    sampling = ["--windows", "3", "--frames", "2", "--interval", "3", "--equilibration", "4"]
    # A process of its own: tblite's threads are set when it is first loaded.
    command = [sys.executable, "-m", "pymlp.data.claisen", "--output", str(output), *sampling]
    command += ["--processes", "1"]
    subprocess.run(command, check=True, capture_output=True)
    first = read_npz(output)
    assert first["coordinates"].shape == (6, 14, 3)
    values = xi(first["coordinates"].astype(float))
    path = read_npz(data.claisen_irc_path())
    targets = np.linspace(path["xi"][0] - 0.1, path["xi"][-1] + 0.1, 3)
    assert np.abs(values - targets[first["window"]]).max() < 0.4

    output.unlink()
    (tmp_path / "small_gfn2.work" / "window_001.npz").unlink()
    again = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "sampling 1 of 3 windows" in again.stdout
    for name, values in read_npz(output).items():
        np.testing.assert_array_equal(values, first[name], err_msg=name)


def test_transition_state_guess_is_a_chair() -> None:
    pytest.importorskip("tblite", reason="tblite (extra 'data') is not installed")
    from ase import Atoms

    from pymlp.data.claisen import NUMBERS, chair_guess

    path = read_npz(data.claisen_irc_path())
    ring = [0, 1, 2, 3, 4, 5]
    signs = []
    for positions in (chair_guess(), path["coordinates"][int(path["ts_index"])]):
        atoms = Atoms(numbers=NUMBERS, positions=positions)
        torsions = [atoms.get_dihedral(*(ring[(k + m) % 6] for m in range(4))) for k in range(6)]
        signs.append([np.sign((torsion + 180) % 360 - 180) for torsion in torsions])
    for around in signs:  # a chair's ring torsions alternate
        assert all(around[k] == -around[k - 1] for k in range(6))


def test_every_prefix_of_the_order_covers_the_windows() -> None:
    windows = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 6))
    order = coverage_order(60, windows)
    assert sorted(order) == list(range(60))
    for rounds in range(1, 7):
        assert (np.bincount(windows[order[: 10 * rounds]]) == rounds).all()
    assert set(windows[order[:2]]) == {0, 9}
    with pytest.raises(ValueError, match="windows: expected 3"):
        coverage_order(3, np.zeros(2))


def two_hydrogens(folder: Path) -> Path:
    source = folder / "h2.npz"
    coordinates = np.array([[[0, 0, 0], [0, 0, d]] for d in (0.70, 0.74, 0.78)], dtype=np.float32)
    write_npz(
        source,
        numbers=np.array([1, 1]),
        coordinates=coordinates,
        energy=np.array([-1.0, -1.1, -1.0]),
        gradient=np.zeros_like(coordinates),
    )
    return source


def test_labelling_resumes_extends_and_refuses_what_is_not_its_own(tmp_path: Path) -> None:
    pytest.importorskip("pyscf", reason="pyscf (extra 'data') is not installed")
    source, output = two_hydrogens(tmp_path), tmp_path / "out.npz"
    assert label(source, output, limit=2) == 2
    first = read_npz(output)
    assert first["index"].tolist() == [0, 2]
    assert first["energy_sqm"].tolist() == [-1.0, -1.0]

    # The work folder is gone, the output is not: only the third structure is computed.
    for path in (tmp_path / "out.work").iterdir():
        path.unlink()
    assert label_main([str(source), str(output)]) == 0
    done = read_npz(output)
    assert done["energy"][[0, 2]].tolist() == first["energy"].tolist()
    # B3LYP/6-31G* of H2 is -1.1755 Hartree at 0.743 Å (NIST CCCBDB).
    assert done["energy"][1] == pytest.approx(-1.1755, abs=3e-4)
    distance = done["coordinates"][:, 1, 2].astype(float) / BOHR
    slope = (done["energy"][2] - done["energy"][0]) / (distance[2] - distance[0])
    assert done["gradient"][1, 1, 2] == pytest.approx(slope, abs=2e-3)

    assert label_main([str(source), str(output), "--basis", "sto-3g"]) == 1
    assert read_npz(output)["energy"].tolist() == done["energy"].tolist()


def test_label_names_what_is_missing_from_the_input(tmp_path: Path) -> None:
    source = tmp_path / "in.npz"
    write_npz(source, numbers=np.array([1, 1]))
    with pytest.raises(ValueError, match="coordinates"):
        label(source, tmp_path / "out.npz")
    write_npz(source, numbers=np.array([1, 1]), coordinates=np.full((1, 2, 3), np.nan))
    with pytest.raises(ValueError, match="finite"):
        label(source, tmp_path / "out.npz")
    source.write_bytes(source.read_bytes()[:100])
    with pytest.raises(ValueError, match="whole npz"):
        label(source, tmp_path / "out.npz")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.npz"
    write_npz(path, numbers=np.arange(3))
    with pytest.raises(ValueError, match="Object arrays"):
        write_npz(path, numbers=np.array([object()]))
    assert read_npz(path)["numbers"].tolist() == [0, 1, 2]
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.npz"]


def test_a_work_folder_belongs_to_its_settings(tmp_path: Path) -> None:
    claim_folder(tmp_path / "work", {"seed": 1})
    claim_folder(tmp_path / "work", {"seed": 1})
    with pytest.raises(ValueError, match="others"):
        claim_folder(tmp_path / "work", {"seed": 2})

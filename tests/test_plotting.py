"""Figures: written whole, with the formats asked for, and clear errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pymlp import plotting


def _size(path: Path) -> tuple[int, int]:
    from matplotlib.image import imread

    image = imread(path)
    assert float(np.std(image)) > 0.01, "an empty picture"
    return image.shape[1], image.shape[0]


def _rows(n: int) -> list[dict[str, str]]:
    return [
        {
            "epoch": str(k),
            "learning_rate": f"{0.01 / k}",
            "train_energy_rmse_kcal_mol": f"{5 / k}",
            "train_force_rmse_kcal_mol_A": f"{9 / k}",
            "validation_energy_rmse_kcal_mol": f"{6 / k}" if k % 2 else "",
            "validation_force_rmse_kcal_mol_A": f"{9.5 / k}" if k % 2 else "",
        }
        for k in range(1, n + 1)
    ]


@pytest.mark.parametrize("n", [1, 2, 50])
def test_loss_curve(tmp_path: Path, n: int) -> None:
    path = plotting.loss_curve(_rows(n), tmp_path / "loss.png")
    assert _size(path)[0] > 1000
    assert [p.name for p in tmp_path.iterdir()] == ["loss.png"]


def test_loss_curve_of_energies_alone(tmp_path: Path) -> None:
    rows = [row | {"train_force_rmse_kcal_mol_A": "nan"} for row in _rows(4)]
    for row in rows:
        row["validation_force_rmse_kcal_mol_A"] = "nan"
    assert _size(plotting.loss_curve(rows, tmp_path / "a.png"))[0] > 1000


def test_loss_curve_needs_rows(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no rows"):
        plotting.loss_curve([], tmp_path / "loss.png")


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_parity_in_three_formats(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(0)
    e, f = rng.standard_normal(20), rng.standard_normal((3000, 3))
    path = plotting.parity((e, e + 0.1), (f, f), tmp_path / f"p.{suffix}", title="t")
    assert path.stat().st_size > 5000
    start = path.read_bytes()[:5]
    assert start in (b"\x89PNG\r", b"%PDF-", b"<?xml")


def test_parity_of_one_value_without_forces(tmp_path: Path) -> None:
    assert _size(plotting.parity(([1.0], [1.0]), None, tmp_path / "p.png"))[0] > 300


def test_parity_refuses_different_lengths(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"energy: .* got 2 and 3"):
        plotting.parity(([1, 2], [1, 2, 3]), None, tmp_path / "p.png")
    assert not list(tmp_path.iterdir())


def test_energy_profile(tmp_path: Path) -> None:
    x = np.linspace(-2, 2, 300)
    path = plotting.energy_profile(x, {"a": x**2, "b": x**2 + 0.5}, tmp_path / "e.png", bins=10)
    assert _size(path)[0] > 500
    with pytest.raises(ValueError, match="same length"):
        plotting.energy_profile(x, {"a": x[:5]}, tmp_path / "f.png")


def test_a_failed_figure_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.figure import Figure

    path = plotting.energy_profile([0.0, 1.0], {"a": [0.0, 1.0]}, tmp_path / "e.png")
    before = path.read_bytes()

    def half(figure: Figure, name: Path, **options: object) -> None:
        name.write_bytes(b"half a picture")
        raise OSError("device gone")

    monkeypatch.setattr(Figure, "savefig", half)
    with pytest.raises(OSError, match="device gone"):
        plotting.energy_profile([0.0, 1.0], {"a": [0.0, 1.0]}, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["e.png"]


def test_unknown_formats_are_refused(tmp_path: Path) -> None:
    for name in ("e.nothing", "e"):
        with pytest.raises(ValueError, match=r"must end in \.png, \.pdf or \.svg, got .*'"):
            plotting.energy_profile([0.0, 1.0], {"a": [0.0, 1.0]}, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_surface_maps(tmp_path: Path) -> None:
    x, y = np.linspace(-1, 1, 12), np.linspace(0, 1, 9)
    image = x[None] ** 2 - y[:, None]
    holed = np.where(image > 0.5, np.nan, image)
    zero = np.zeros_like(image)
    path = plotting.surface_maps(
        x,
        y,
        [("a", holed, "value"), ("b", image, "difference"), ("c", zero, "positive")],
        tmp_path / "maps.png",
        unit="eV",
        points=np.zeros((3, 2)),
        columns=2,
    )
    width, height = _size(path)
    assert width > 1000
    assert height > 800  # two rows
    with pytest.raises(ValueError, match=r"image of 'a' must have shape \(9, 12\)"):
        plotting.surface_maps(x, y, [("a", image.T, "value")], tmp_path / "a.png")
    with pytest.raises(ValueError, match="at least one image"):
        plotting.surface_maps(x, y, [], tmp_path / "a.png")

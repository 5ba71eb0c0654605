"""The lessons: their scripts in short mode, and what finds, reads and runs them."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pymlp.lessons import Lesson, begin, find, parse, run, scripts
from pymlp.lessons.session import under_runner

SCRIPTS = scripts()

# Numbers that a short run must print: name -> (lowest, highest). A short run proves that the
# lesson works, not that the method does; the ranges are what a working one cannot leave.
EXPECTED: dict[str, dict[str, tuple[float, float]]] = {
    "1": {
        "training points with V < 10": (696, 696),
        "parameters": (81, 81),
        "Adam, energies: energy RMSE": (1, 7),
        "trained properly: energy RMSE": (0.3, 4),
        "trained properly: gradient RMSE between": (1, 15),
        "error of the barrier 1-3, trained properly": (-12, 12),
    },
    "2": {
        "training points with V < 10": (178, 178),
        "length scale l": (0.25, 0.4),
        "log likelihood": (-250, -100),
        "energies observed: energy RMSE": (0, 1e-3),
        "energies observed: energy RMSE between": (0.01, 0.5),
        "100 energies: errors within 1.96 σ": (50, 100),  # noqa: RUF001
        "gradients observed: energy RMSE between": (0, 0.02),
        "gradients observed: gradient RMSE between": (0, 0.2),
        "Matérn, energies: energy RMSE between": (0.01, 0.5),
    },
    "3": {
        "structures": (73, 73),
        "cis above trans": (4.9, 5.0),
        "Behler-Parrinello features per atom": (48, 48),
        "ANI features per atom": (128, 128),
        "largest difference by hand - pymlp": (0, 1e-12),
        "largest net derivative (translation)": (0, 1e-12),
        "largest net torque (rotation)": (0, 1e-12),
    },
    "4": {
        "largest change of R̃ on rotation": (0.1, 3),
        "largest change of R̃ R̃ᵀ on rotation": (0, 1e-12),
        "embedding functions m1": (100, 100),
        "features per atom": (400, 400),
        "largest difference by hand - pymlp": (0, 1e-10),
        "largest net derivative (translation)": (0, 1e-10),
        "force RMSE, validation": (0, 20),
    },
    "5": {
        "barrier, GFN2-xTB, GFN2 path": (19.7, 19.9),
        "barrier, B3LYP/6-31G*, GFN2 path": (33.5, 33.8),
        "barrier, B3LYP/6-31G*, its own minima and saddle point": (27.3, 27.5),
        "reaction energy, B3LYP/6-31G*, GFN2 path": (-17.9, -17.6),
        "structures": (800, 800),
        "spread of the differences": (6, 7.5),
        "net force": (0, 1e-10),
        "force RMSE, Behler-Parrinello": (0, 30),
        "force RMSE, ANI": (0, 30),
        "largest change of the total energy": (0, 0.5),
        "difference from pymlp.read": (0, 1e-12),
    },
    "6": {
        "structures to train on": (600, 600),
        "features per atom": (384, 384),
        "barrier on the GFN2 path, B3LYP": (33.5, 33.8),
        "largest change of a force component": (0, 0.01),
    },
    "7": {
        "observations": (222, 222),
        "energy RMSE, energies": (0, 6),
        "energy RMSE, GAP sum": (0, 6),
        "force RMSE, energies and forces": (0, 6),
        "rms of error / σ, force": (0.5, 2),  # noqa: RUF001
        "σ at a stretch of 0.8 Å": (0.5, 20),  # noqa: RUF001
    },
}
EXPECTED["comparison"] = {
    f"{name}, largest relative difference": (0, 1e-9)
    for name in ("features", "energies", "forces", "weight gradients of a force loss")
}
#: Figures and 3-D views of a lesson, at least.
PICTURES: dict[str, set[str]] = {
    "comparison": {"times.png"},
    "1": {
        "reference.png",
        "loss.png",
        "energies_adam.png",
        "gradients_adam.png",
        "trained_properly.png",
        "force_errors.png",
    },
    "2": {
        "likelihood.png",
        "energies.png",
        "few_energies.png",
        "few_gradients_predicted.png",
        "few_gradients_observed.png",
        "learning_curves.png",
    },
    "3": {"cutoff.png", "radial.png", "angular.png", "along-torsion.png", "derivative.png"},
    "4": {"butane.html", "switch.png", "environment-matrix.png", "embedding.png", "training.png"},
    "5": {
        "reaction.html",
        "data.png",
        "loss-bp-fnn.png",
        "parity-ani-fnn.png",
        "profile.png",
        "path.png",
        "dynamics.html",
        "use.png",
    },
    "6": {"loss.png", "parity.png", "profile.png", "path.png", "saddle-point.html"},
    "7": {
        "parity-energies.png",
        "parity-gap-sum.png",
        "parity-energies-and-forces.png",
        "learning-curve.png",
        "calibration.png",
        "profile.png",
        "use.png",
    },
}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.path.stem)
def test_lesson_in_short_mode(script, tmp_path: Path) -> None:
    lesson = run(script, tmp_path, short=True)
    assert lesson.short
    for name, (low, high) in EXPECTED[script.name].items():
        assert low <= lesson.numbers[name]["value"] <= high, (name, lesson.numbers[name])
    report = json.loads((tmp_path / "numbers.json").read_text())
    assert report["numbers"] == lesson.numbers
    assert report["seconds"] > 0
    assert PICTURES[script.name] <= {*report["figures"], *report["views"]}
    for picture in lesson.figures:
        assert picture.stat().st_size > 5000, f"{picture.name} shows nothing"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.path.stem)
def test_lesson_reads_as_one(script) -> None:
    cells = parse(script.path.read_text())
    text = "\n".join(cell.source for cell in cells if cell.text)
    assert cells[0].text
    assert cells[0].source.startswith("# ")
    assert "\n## " in text
    if script.name.isdigit():
        assert script.title.startswith(f"Lesson {script.name}: ")
        assert "\n## Exercises" in text
    assert cells[-1].source == "lesson.end()"


def test_cells_of_a_script() -> None:
    cells = parse(
        "# ---\n# header\n# ---\n\n# %% [markdown]\n# # Title\n#\n# text\n\n# %%\n\nx = 1\n"
    )
    assert [(cell.source, cell.text, cell.line) for cell in cells] == [
        ("# Title\n\ntext", True, 6),
        ("x = 1", False, 12),
    ]


def test_errors_have_the_lines_of_the_script(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("# %% [markdown]\n# # Broken\n\n# %%\nx = 1\n\n# %%\nx / 0\n")
    with pytest.raises(ZeroDivisionError) as caught:
        run(path, tmp_path)
    assert caught.traceback[-1].path == path
    assert caught.traceback[-1].lineno + 1 == 8


def test_numbers_and_tables_are_printed_and_kept(tmp_path: Path, capsys) -> None:
    lesson = Lesson(output=tmp_path)
    lesson.number("energy RMSE", 0.12345, "kcal/mol")
    lesson.table("sizes", [{"points": 100, "kind": "a"}, {"points": 20, "kind": "b"}])
    assert capsys.readouterr().out.splitlines() == [
        "energy RMSE: 0.1235 kcal/mol",
        "points  kind",
        "100     a   ",
        "20      b   ",
    ]
    lesson.end()
    report = json.loads((tmp_path / "numbers.json").read_text())
    assert report["numbers"] == {"energy RMSE": {"value": 0.12345, "unit": "kcal/mol"}}
    assert report["tables"]["sizes"][1] == {"points": 20.0, "kind": "b"}


def test_what_a_lesson_refuses(tmp_path: Path) -> None:
    lesson = Lesson(output=tmp_path)
    lesson.number("once", 1)
    with pytest.raises(ValueError, match="'once' again"):
        lesson.number("once", 1)
    with pytest.raises(ValueError, match="must be finite, got nan"):
        lesson.number("error", math.nan)
    with pytest.raises(ValueError, match="the same columns"):
        lesson.table("rows", [{"a": 1}, {"b": 1}])
    with pytest.raises(ValueError, match="letters, digits"):
        lesson.view("<p>", "../elsewhere")
    with pytest.raises(ValueError, match="lesson must be one of 1"):
        find("99")


def test_begin_follows_the_runner_and_else_the_environment(tmp_path: Path, monkeypatch) -> None:
    with under_runner(Lesson(output=tmp_path)) as lesson:
        assert begin() is lesson
    monkeypatch.setenv("PYMLP_LESSON_SHORT", "1")
    monkeypatch.setenv("PYMLP_LESSON_OUTPUT", str(tmp_path / "own"))
    own = begin()
    assert own.short
    assert own.choose(1000, 5) == 5
    assert own.output == tmp_path / "own"


def test_without_matplotlib_the_cure_is_named(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'pymlp\[train\]'"):
        run(find("1"), tmp_path)


def test_command_line(tmp_path: Path) -> None:
    from pymlp.cli import app

    listed = CliRunner().invoke(app, ["lesson", "--list"])
    assert listed.exit_code == 0
    assert listed.output.splitlines()[0].split(maxsplit=1)[0] == "1"
    assert len(listed.output.splitlines()) == len(SCRIPTS)
    where = CliRunner().invoke(app, ["lesson", "1", "--path"])
    assert Path(where.output.strip()) == find("1").path
    file = tmp_path / "lesson.ipynb"
    written = CliRunner().invoke(app, ["lesson", "1", "--notebook", str(file)])
    assert written.exit_code == 0
    cells = json.loads(file.read_text())["cells"]
    assert [cell["source"] for cell in cells] == [
        c.source for c in parse(find("1").path.read_text())
    ]
    assert cells[0]["cell_type"] == "markdown"
    assert cells[1]["outputs"] == []
    wrong = CliRunner().invoke(app, ["lesson", "nought"])
    assert wrong.exit_code == 2
    assert "lesson must be one of" in wrong.output

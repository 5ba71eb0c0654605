"""The 3-D view of a molecule: what it draws, and that it needs nothing else."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule

from pymlp.data import claisen_irc_path
from pymlp.molecule_view import bonds, molecule_html, molecule_svg

METHANOL = molecule("CH3OH")
NUMBERS, POSITIONS = METHANOL.numbers, METHANOL.positions


def data_of(page: str) -> dict:
    """What the page hands to its script."""
    (text,) = re.findall(r'getElementById\("[\w-]+"\), (\{.*\})\);', page)
    return json.loads(text)


def test_bonds_of_methanol() -> None:
    pairs = {frozenset((NUMBERS[i], NUMBERS[j])): 0 for i, j, _ in bonds(NUMBERS, POSITIONS)}
    for i, j, strength in bonds(NUMBERS, POSITIONS):
        pairs[frozenset((NUMBERS[i], NUMBERS[j]))] += 1
        assert strength == 1.0
    assert pairs == {frozenset((6, 8)): 1, frozenset((1, 6)): 3, frozenset((1, 8)): 1}


def test_bonds_form_and_break_along_the_reaction() -> None:
    path = np.load(claisen_irc_path())
    order = np.argsort(path["arc_length"])
    first, last = (
        {(i, j): s for i, j, s in bonds(path["numbers"], path["coordinates"][order[end]])}
        for end in (0, -1)
    )
    state = {
        (i, j): s for i, j, s in bonds(path["numbers"], path["coordinates"][int(path["ts_index"])])
    }
    assert set(first) - set(last) == {(2, 3)}  # O3-C4 breaks
    assert set(last) - set(first) == {(0, 5)}  # C1-C6 forms
    assert 0 < state[0, 5] < 1


def test_page_holds_everything_it_needs() -> None:
    page = molecule_html(NUMBERS, POSITIONS, title="methanol")
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|\bsrc=|import\(|fetch\(", page)
    assert page.count("<circle") == len(NUMBERS)
    assert page.count("<line") == 5
    assert "<input" not in page
    assert page == molecule_html(NUMBERS, POSITIONS, title="methanol")


def test_frames_are_laid_over_each_other() -> None:
    rng = np.random.default_rng(1)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    rotation *= np.sign(np.linalg.det(rotation))
    frames = np.stack([POSITIONS, POSITIONS @ rotation.T + 5.0])
    page = molecule_html(NUMBERS, frames, labels=["before", "</script>"])
    data = data_of(page)
    np.testing.assert_allclose(data["frames"][0], data["frames"][1], atol=2e-3)
    assert data["labels"] == ["before", "</script>"]
    assert page.count("</script>") == 1
    assert 'max="1"' in page


def test_view_is_a_rotation_that_keeps_handedness() -> None:
    rotation = np.array(data_of(molecule_html(NUMBERS, POSITIONS))["rotation"])
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-4)
    assert np.linalg.det(rotation) > 0
    turned = (POSITIONS - POSITIONS.mean(0)) @ rotation.T
    assert turned.var(axis=0).argmin() == 2  # flattened along the line of sight


def test_one_atom_and_two() -> None:
    assert molecule_svg([10], np.zeros((1, 3))).count("<circle") == 1
    assert molecule_html([1, 1], [[0, 0, 0], [0, 0, 0.74]]).count("<line") == 1


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match=r"positions must be \[N, 3\]"):
        molecule_html(NUMBERS, POSITIONS[:-1])
    with pytest.raises(ValueError, match="must be finite"):
        molecule_html(NUMBERS, POSITIONS * np.nan)
    with pytest.raises(ValueError, match="labels must be 1"):
        molecule_html(NUMBERS, POSITIONS, labels=["a", "b"])
    with pytest.raises(ValueError, match="one structure"):
        molecule_svg(NUMBERS, np.stack([POSITIONS] * 2))


@pytest.mark.skipif(shutil.which("node") is None, reason="no node to parse the script with")
def test_script_is_javascript(tmp_path: Path) -> None:
    (script,) = re.findall(r"<script>(.*)</script>", molecule_html(NUMBERS, POSITIONS), re.S)
    path = tmp_path / "view.js"
    path.write_text(script)
    subprocess.run(["node", "--check", str(path)], check=True)


PROBE = """
<script>
const canvas = document.querySelector("canvas"), slider = document.querySelector("input");
const events = [], label = document.querySelector("output");
function send(name, x, y) {
  canvas.setPointerCapture = () => {};
  canvas.dispatchEvent(new PointerEvent(name, { clientX: x, clientY: y, pointerId: 1 }));
}
const begin = canvas.toDataURL();
send("pointerdown", 10, 10); send("pointermove", 60, 30); send("pointerup", 60, 30);
const turned = canvas.toDataURL();
send("pointermove", 90, 90);
const let_go = canvas.toDataURL();
canvas.dispatchEvent(new MouseEvent("dblclick"));
const back = canvas.toDataURL();
slider.value = 1; slider.dispatchEvent(new Event("input"));
const next = canvas.toDataURL();
document.body.innerHTML = "<p>" + JSON.stringify({
  drawn: begin.length > 5000, still: getComputedStyle(document.querySelector(".still")).display,
  turns: turned !== begin, stops: let_go === turned, returns: back === begin,
  frames: next !== begin, label: label.textContent }) + "</p>";
</script>
"""


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium to show the page in")
def test_view_turns_in_a_browser(tmp_path: Path) -> None:
    moved = POSITIONS.copy()
    moved[1, 0] += 0.5
    page = molecule_html(NUMBERS, np.stack([POSITIONS, moved]), labels=["first", "second"])
    path = tmp_path / "view.html"
    path.write_text(f'<meta charset="utf-8"><body>{page}{PROBE}</body>')
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'u'}"]
    shown = subprocess.run(
        ["chromium", *options, "--dump-dom", str(path)],
        check=True, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    (found,) = re.findall(r"<p>(\{.*\})</p>", shown.stdout)
    assert json.loads(found) == {
        "drawn": True,
        "still": "none",
        "turns": True,
        "stops": True,
        "returns": True,
        "frames": True,
        "label": "second",
    }

"""Run configurations: written, read back, and every mistake named with its line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pymlp.config import (
    KINDS,
    BehlerParrinelloRun,
    ConfigError,
    configure,
    load_config,
    parse_config,
    register_kind,
    render,
)
from pymlp.config.kinds import kind_named
from pymlp.config.start import starting_configuration
from tests.toy_data import small_run, write_extxyz, write_npz


def _text(kind: str = "bp-fnn") -> str:
    entry = KINDS[kind]
    config = entry.config.model_validate(
        {
            "kind": kind,
            "elements": ["H", "O"],
            "data": {"train": "a.npz", "validation": "b.npz", "keys": {"gradient": "g"}},
            **entry.defaults(),
        }
    )
    return render(config, {"": ["head"], "data.target": ["why"]})


def _line_of(text: str, start: str) -> int:
    return next(k for k, line in enumerate(text.splitlines(), 1) if line.strip().startswith(start))


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_written_configuration_reads_back_and_every_key_has_a_comment(kind: str) -> None:
    text = _text(kind)
    config = parse_config(text)
    assert render(config, {"": ["head"], "data.target": ["why"]}) == text
    lines = text.splitlines()
    for index, line in enumerate(lines):
        if re.match(r"\s*[a-z_]+:", line):
            commented = "#" in line or "#" in lines[index - 1] or "#" in lines[index - 2]
            assert commented, line
        assert len(line) <= 100


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("batch_size: 32", "batch_size: 0", r"training.batch_size: .*greater than or equal to 1"),
        ("batch_size: 32", "batch_size: 3.5", r"training.batch_size: .*integer.* got 3.5"),
        ("batch_size: 32", "batchsize: 32", r"training.batchsize: unknown key; did you mean `b"),
        ("activation:", "activaton:", r"network.activaton: unknown key; did you mean `activation`"),
        ("kind: cosine", "kind: cosin", r"training.schedule.kind: .* did you mean `cosine`\?"),
        ("length: Å", "length: furlong", r"data.units.length: unknown length unit 'furlong'"),
        ("cutoff: 5.2", "cutoff: -1", r"descriptor.cutoff: .*greater than 0"),
        ("cutoff: 5.2", "cutoff: 0", r"descriptor.cutoff: .*greater than 0, got 0$"),
        ("cutoff: 5.2", "cutoff: .inf", r"descriptor.cutoff: .*finite number"),
        ("elements: [H, O]", "elements: [H, Xx]", r"elements: unknown element .* \['Xx'\]"),
        ("device: auto", "device: gpu", r"training.device: device must be auto, cpu, cuda"),
        ("target: total", "target: difference", r"data.target: .*'total' or 'delta'"),
    ],
)
def test_mistakes_name_line_key_and_remedy(old: str, new: str, message: str) -> None:
    text = _text()
    assert old in text
    broken = text.replace(old, new, 1)
    line = _line_of(broken, new.split(":")[0] + ":" if ":" in new else new)
    if old == "kind: cosine":
        line = next(k for k, row in enumerate(broken.splitlines(), 1) if "kind: cosin " in row)
    with pytest.raises(ConfigError, match=rf"run.yaml, line {line}: {message}"):
        parse_config(broken)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("gradient: g", "gradient: null", "names neither forces nor gradient"),
        ("forces: null", "forces: f", "keys.forces and keys.gradient exclude each other"),
        ("target: total", "target: delta", "needs keys.baseline_energy"),
        ("angular_cutoff: null", "angular_cutoff: 7.0", "must not exceed cutoff"),
    ],
)
def test_keys_that_disagree(old: str, new: str, message: str) -> None:
    text = _text()
    assert old in text
    with pytest.raises(ConfigError, match=message):
        parse_config(text.replace(old, new, 1))


def test_relu_is_refused_for_forces_and_taken_for_energies() -> None:
    text = re.sub(r"activation: \w+ ", "activation: relu ", _text())
    with pytest.raises(ConfigError, match="relu has no second derivative"):
        parse_config(text)
    energies = re.sub(r"force_(start|end): [\d.]+", r"force_\1: 0.0", text)
    assert not parse_config(energies).trains_on_forces  # type: ignore[attr-defined]


def test_all_mistakes_come_at_once() -> None:
    broken = _text().replace("batch_size: 32", "batch_size: 0").replace("seed: 0", "seed: -1")
    with pytest.raises(ConfigError) as caught:
        parse_config(broken)
    assert "batch_size" in str(caught.value)
    assert "seed" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: bp-fnn\nelements: [H\n", r"line \d: not valid YAML"),
        ("kind: bp-fnn\nkind: ani-fnn\n", "line 2: not valid YAML: found duplicate key"),
        ("just words", "no keys at all"),
        ("elements: [H]", "missing key `kind`, one of ani-fnn, bp-fnn"),
        ("kind: bp-fn\n", "line 1: unknown kind 'bp-fn'.*did you mean `bp-fnn`"),
        ("kind: bp-fnn\nelements: [H]\n", r"line 1: data: missing\n.*descriptor: missing"),
    ],
)
def test_files_that_are_no_configuration(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(text)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file; `pymlp init` writes"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="is a folder"):
        load_config(tmp_path)
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_config(tmp_path / "b.yaml")


def test_init_finds_keys_units_and_delta_target_of_the_npz_layout(tmp_path: Path) -> None:
    path = small_run(tmp_path)
    config = load_config(path)
    text = path.read_text(encoding="utf-8")
    assert config.data.target == "delta"
    assert config.data.units.energy == "Hartree"
    assert config.data.units.force == "Hartree/Bohr"
    assert config.data.keys.gradient == "gradient"
    assert config.data.keys.baseline_energy == "energy_sqm"
    assert config.elements == ["H", "O"]
    assert "Δ-learning" in text
    assert "energy - energy_sqm" in text


def test_init_without_baseline_or_gradients(tmp_path: Path) -> None:
    data = write_npz(tmp_path / "a.npz", 8, baseline=False)
    text, _ = starting_configuration(
        kind_named("ani-fnn"), str(data), str(data), tmp_path / "run.yaml", {}
    )
    assert parse_config(text).data.target == "total"
    import numpy as np

    with np.load(data) as file:
        kept = {name: file[name] for name in file.files if name != "gradient"}
    np.savez(tmp_path / "e.npz", **kept)
    text, _ = starting_configuration(
        kind_named("ani-fnn"), str(tmp_path / "e.npz"), str(data), tmp_path / "run.yaml", {}
    )
    assert not parse_config(text).trains_on_forces  # type: ignore[attr-defined]


def test_init_takes_the_target_that_is_asked_for(tmp_path: Path) -> None:
    data, out = str(write_npz(tmp_path / "a.npz", 8)), tmp_path / "run.yaml"
    kind = kind_named("bp-fnn")
    found = {}
    for target in (None, "delta", "total"):
        text, notes = starting_configuration(kind, data, data, out, {}, target)  # type: ignore[arg-type]
        config = parse_config(text)
        found[target] = (config.data.target, "energy - energy_sqm" in " ".join(notes))
        assert config.data.keys.baseline_energy == "energy_sqm", "the word alone changes it back"
    assert found == {None: ("delta", True), "delta": ("delta", True), "total": ("total", False)}
    assert "lower level of theory in the file is not used" in " ".join(
        text.replace("#", " ").split()
    )
    alone = str(write_npz(tmp_path / "b.npz", 8, baseline=False))
    with pytest.raises(ValueError, match=r"target delta needs .* --baseline-energy-key"):
        starting_configuration(kind, alone, alone, out, {}, "delta")
    with pytest.raises(ValueError, match="target must be total or delta, got 'sqm'"):
        starting_configuration(kind, data, data, out, {}, "sqm")  # type: ignore[arg-type]


def test_init_asks_for_units_of_extxyz_and_finds_the_only_keys(tmp_path: Path) -> None:
    data = str(write_extxyz(tmp_path / "a.extxyz", 6))
    kind, out = kind_named("bp-fnn"), tmp_path / "run.yaml"
    with pytest.raises(ValueError, match="does not say in which units.*--energy-unit eV"):
        starting_configuration(kind, data, data, out, {})
    given: dict[str, str | None] = {"energy_unit": "eV", "force_unit": "eV/Å"}
    text, notes = starting_configuration(kind, data, data, out, given)
    config = parse_config(text)
    assert (config.data.keys.energy, config.data.keys.forces) == ("ref_energy", "ref_forces")
    said = "as given: energies ref_energy in eV, forces ref_forces in eV/Å, coordinates in Å"
    assert said in notes
    assert said in " ".join(text.replace("#", " ").split()), "the file says it too"


def test_init_says_the_units_that_were_given(tmp_path: Path) -> None:
    """Not those of the layout, when the user knows better."""
    data = str(write_npz(tmp_path / "a.npz", 8, baseline=False))
    given: dict[str, str | None] = {"energy_unit": "kcal/mol", "force_unit": "kcal/mol/Å"}
    kind, out = kind_named("bp-fnn"), tmp_path / "run.yaml"
    text, notes = starting_configuration(kind, data, data, out, given)
    assert parse_config(text).data.units.energy == "kcal/mol"
    assert any("kcal/mol -> eV" in note for note in notes)
    assert any("kcal/mol/Å -> eV/Å" in note for note in notes)
    assert "Hartree ->" not in text


@pytest.mark.parametrize("kind", ["ani-fnn", "bp-fnn"])
def test_the_configurations_of_the_accuracy_table_are_the_defaults(kind: str) -> None:
    folder = Path(__file__).resolve().parents[1] / "benchmarks" / "accuracy"
    config = load_config(folder / f"{kind}.yaml")
    defaults = KINDS[kind].config.model_validate(
        {
            "kind": kind,
            "elements": ["H", "C", "O"],
            "data": config.data.model_dump(),
            **KINDS[kind].defaults(),
        }
    )
    assert config == defaults


def test_a_kind_can_be_registered_once() -> None:
    with pytest.raises(ValueError, match="already registered"):
        register_kind(KINDS["bp-fnn"])


# -------------------------------------------------------------------------------- from Python
def test_configure_is_init_with_changes(tmp_path: Path) -> None:
    path = small_run(tmp_path)
    data = tmp_path / "data.npz"
    changes = {
        "network": {"hidden": [8]},
        "training": {"epochs": 6, "batch_size": 8, "checkpoint_every": 2},
    }
    config = configure("bp-fnn", f"{data}@16:", f"{data}@:16", **changes)
    assert config == load_config(path)
    # A section in a section is changed, not replaced.
    other = configure(
        "bp-fnn", data, data, training={"schedule": {"final": 0.5}}, descriptor={"radial": [(1, 2)]}
    )
    assert isinstance(other, BehlerParrinelloRun)
    assert (other.training.schedule.final, other.training.schedule.kind) == (0.5, "cosine")
    assert other.training.threads == 1, "a default of the kind"
    assert other.descriptor.radial == [(1.0, 2.0)]
    assert len(other.descriptor.angular) == 18


def test_configure_without_forces_and_with_units(tmp_path: Path) -> None:
    data = write_npz(tmp_path / "a.npz", 8)
    no_forces = {"gradient": None, "baseline_gradient": None}
    for kind in ("bp-fnn", "gpr"):
        config = configure(kind, data, data, data={"keys": no_forces})
        assert config.data.keys.energy == "energy"
        assert config.data.target == "delta"
        assert getattr(config, "trains_on_forces", False) is False
    written = write_extxyz(tmp_path / "a.extxyz", 6)
    config = configure(
        "bp-fnn", written, written, data={"units": {"energy": "eV", "force": "eV/Å"}}
    )
    assert (config.data.keys.energy, config.data.keys.forces) == ("ref_energy", "ref_forces")
    with pytest.raises(ValueError, match="does not say in which units"):
        configure("bp-fnn", written, written)


def test_configure_refuses_what_a_file_could_not_say(tmp_path: Path) -> None:
    data = write_npz(tmp_path / "a.npz", 8)
    with pytest.raises(ValueError, match="did you mean `bp-fnn`"):
        configure("bp-fn", data, data)
    with pytest.raises(ValueError, match="epoch"):
        configure("bp-fnn", data, data, training={"epoch": 3})
    with pytest.raises(ValueError, match="trainings"):
        configure("bp-fnn", data, data, trainings={"epochs": 3})
    with pytest.raises(FileNotFoundError):
        configure("bp-fnn", tmp_path / "none.npz", data)

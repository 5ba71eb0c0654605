"""The project's structure, executed: who may include or import whom, and what stands where.

The layers are drawn in csrc/README.md (C++) and CONTRIBUTING.md (Python).
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CSRC = ROOT / "csrc"
PACKAGE = ROOT / "pymlp"

# ------------------------------------------------------------------------------------------- C++
CPP_LAYERS = ("numbers", "formulas", "loops", "ops", "library.cpp")
CPP_FILES = sorted(p for p in CSRC.rglob("*") if p.suffix in {".h", ".cuh", ".cpp", ".cu"})
LIBM = re.compile(
    r"(?<![\w.])(?:std::|__builtin_)?(?:a?(?:cos|sin|tan)h?|atan2|cospi|sinpi|sincos(?:pi)?"
    r"|exp|exp2|expm1|log|log2|log10|log1p|pow|r?sqrt|cbrt|hypot|fma|fabs|fmin|fmax)f?\s*\("
)


def cpp_layer(file: Path) -> str | None:
    """First part of the path below csrc/, when it is a layer."""
    first = file.relative_to(CSRC).parts[0]
    return first if first in CPP_LAYERS else None


def without_comments(text: str) -> str:
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    return re.sub(r"//[^\n]*", "", text)


def includes(file: Path) -> list[str]:
    return re.findall(r'^\s*#\s*include\s*[<"]([^">]+)[">]', file.read_text(), flags=re.MULTILINE)


def own_include(file: Path, name: str) -> Path | None:
    """The file of csrc/ that an include names, or None for a foreign one."""
    for base in (file.parent, CSRC):
        path = (base / name).resolve()
        if path.is_file() and path.is_relative_to(CSRC):
            return path
    return None


def relative(file: Path) -> str:
    return str(file.relative_to(ROOT))


def test_csrc_was_found() -> None:
    layers = {cpp_layer(file) for file in CPP_FILES}
    assert layers >= set(CPP_LAYERS)


@pytest.mark.parametrize("file", CPP_FILES, ids=relative)
def test_cpp_includes_only_leftwards(file: Path) -> None:
    layer = cpp_layer(file)
    for name in includes(file):
        target = own_include(file, name)
        if target is None:
            continue
        target_layer = cpp_layer(target)
        if layer is None:
            # module.cpp: free of everything that computes; it may ask the dispatcher for its level
            assert target.name == "simd_level.h", f"{relative(file)} includes {name}"
        else:
            assert target_layer is not None, f"{relative(file)} includes {name}, in no layer"
            assert CPP_LAYERS.index(target_layer) <= CPP_LAYERS.index(layer), (
                f"{relative(file)} ({layer}) includes {name} ({target_layer}): "
                f"only {' <- '.join(CPP_LAYERS)} is allowed"
            )


@pytest.mark.parametrize("file", CPP_FILES, ids=relative)
def test_torch_only_in_ops_and_library(file: Path) -> None:
    layer = cpp_layer(file)
    # ops/cpu is compiled once per SIMD level: torch's inline functions must stay out of it.
    if layer in {"ops", "library.cpp"} and (CSRC / "ops" / "cpu") not in file.parents:
        return
    found = [name for name in includes(file) if re.match(r"(torch|ATen|c10)/", name)]
    assert not found, f"{relative(file)} includes {found}"


def test_torch_stays_out_of_what_ops_cpu_includes() -> None:
    todo = [file for file in CPP_FILES if (CSRC / "ops" / "cpu") in file.parents]
    seen: set[Path] = set()
    while todo:
        file = todo.pop()
        seen.add(file)
        names = includes(file)
        assert not [n for n in names if n.startswith("torch/")], relative(file)
        todo += [t for n in names if (t := own_include(file, n)) and t not in seen]
    assert len(seen) > 2


@pytest.mark.parametrize(
    "file", [f for f in CPP_FILES if cpp_layer(f) in {"formulas", "loops"}], ids=relative
)
def test_formulas_and_loops_use_the_vocabulary_of_numbers(file: Path) -> None:
    text = without_comments(file.read_text())
    assert not LIBM.findall(text), f"{relative(file)} calls libm: {LIBM.findall(text)}"
    targets = re.findall(r"#\s*(?:el)?if.*(?:__AVX|__SSE|__ARM|__aarch64|__CUDA_ARCH__).*", text)
    assert not targets, f"{relative(file)}: per-target code belongs to numbers/: {targets}"


@pytest.mark.parametrize("file", [f for f in CPP_FILES if cpp_layer(f) == "formulas"], ids=relative)
def test_formulas_name_their_equation_and_have_no_loops_over_data(file: Path) -> None:
    text = file.read_text()
    assert re.search(r"\beqs? \d", text.split("#pragma once")[0]), f"{relative(file)}: equation?"
    code = without_comments(text)
    assert not re.search(r"\bwhile\s*\(", code)
    # Several factors at a time, as many as a template says, is no loop over data.
    counts = set(re.findall(r"template <[^>]*\bint (\w+)", code))
    loops = re.findall(r"\bfor\s*\(([^)]*)\)", code)
    over = [re.fullmatch(r"int (\w+) = 0; \1 < (\w+); \+\+\1", loop) for loop in loops]
    wrong = [loop for loop, m in zip(loops, over, strict=True) if m is None or m[2] not in counts]
    assert not wrong, f"{relative(file)}: loops belong to loops/: {wrong}"


# ---------------------------------------------------------------------------------------- Python
TENSORS_ONLY: set[str] = set()
DATA = {"units", "structures", "structure_checks"}
DESCRIPTORS = {"ops", "pair_ops", "deep_pot_ops", "embedding", "neighbors", "descriptors"} | DATA
# The Gaussian process itself works on tensors; these of its files lead there from structures.
GP_ON_STRUCTURES = {"__init__", "inputs", "predictor", "regression", "solvers", "sparse"}
GP_ON_STRUCTURES |= {"state", "training_set", "weight_search"}
# Unit (module or subpackage of pymlp) -> what it may import of pymlp. Those without a row stand
# above all of these and may import anything; nothing with a row may import them.
PYTHON_LAYERS: dict[str, set[str]] = {
    "_C": set(),
    "atomic_files": set(),
    "devices": {"_C"},
    "units": set(),
    "structure_checks": {"units"},
    "structures": DATA,
    "io": {"atomic_files"} | DATA,
    "ops": {"_C"},
    "deep_pot_ops": {"ops"},
    "embedding": TENSORS_ONLY,
    "pair_ops": {"ops"},
    "neighbors": {"pair_ops"} | DATA,
    "descriptors": DESCRIPTORS,
    "networks": TENSORS_ONLY,
    "fused_networks": {"ops", "networks"},
    "covariances": TENSORS_ONLY,
    "gaussian_process": {"covariances", "atomic_files"},
    "gaussian_process on structures": {"covariances", "gaussian_process", "model_files"}
    | DESCRIPTORS,
    "model_files": {"atomic_files"},
    "prediction": {"neighbors", "pair_ops"} | DATA,
    "potential": {
        "prediction",
        "devices",
        "io",
        "networks",
        "fused_networks",
        "covariances",
        "gaussian_process",
        "model_files",
    }
    | {"gaussian_process on structures"}
    | DESCRIPTORS,
}
# Above these there is nothing but what a user calls.
TOPMOST = {"cli"}
PYTHON_FILES = sorted(PACKAGE.rglob("*.py"))


def unit_of(module: list[str]) -> str:
    """Unit of ["pymlp", "io", "npz"], say."""
    first, *rest = module[1:]
    if first == "gaussian_process" and (rest or ["__init__"])[0] in GP_ON_STRUCTURES:
        return "gaussian_process on structures"
    return first


def python_unit(file: Path) -> str:
    return unit_of(["pymlp", *file.relative_to(PACKAGE).with_suffix("").parts])


def is_for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def executed(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below, but for blocks that only type checkers read."""
    for child in ast.iter_child_nodes(node):
        if not is_for_type_checkers(child):
            yield child
            yield from executed(child)


def is_module(parts: list[str]) -> bool:
    path = PACKAGE.joinpath(*parts[1:])
    return path.is_dir() or path.with_suffix(".py").is_file() or parts[1:] == ["_C"]


def imported_units(file: Path) -> set[str]:
    """Units that a file imports, at the top or inside functions."""
    package = ["pymlp", *file.relative_to(PACKAGE).parent.parts]
    modules: list[list[str]] = []
    for node in executed(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            modules += [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            base = base + (node.module.split(".") if node.module else [])
            names = [[*base, alias.name] for alias in node.names]
            modules += [name if is_module(name) else base for name in names]
    own = [module for module in modules if module[0] == "pymlp" and len(module) > 1]
    return {unit_of(module) for module in own} - {python_unit(file)}


@pytest.mark.parametrize("file", PYTHON_FILES, ids=relative)
def test_python_imports_only_lower_layers(file: Path) -> None:
    unit = python_unit(file)
    imported = imported_units(file)
    if unit not in TOPMOST | {"__init__", "demo"}:
        assert not imported & TOPMOST, f"{relative(file)} imports {sorted(imported & TOPMOST)}"
    if unit not in PYTHON_LAYERS:
        return
    wrong = imported - PYTHON_LAYERS[unit]
    allowed = ", ".join(sorted(PYTHON_LAYERS[unit])) or "nothing of pymlp"
    assert not wrong, f"{relative(file)} imports {sorted(wrong)}; {unit} may import {allowed}"


def test_python_layers_name_existing_modules() -> None:
    units = {python_unit(file) for file in PYTHON_FILES} | {"_C"}
    assert set(PYTHON_LAYERS) | TOPMOST <= units


def test_imports_are_read() -> None:
    assert imported_units(PACKAGE / "neighbors.py") >= {"pair_ops", "structures"}
    assert "gaussian_process" in imported_units(PACKAGE / "gaussian_process" / "regression.py")


# ------------------------------------------------------------------------------------- all files
def tracked_files() -> list[Path]:
    """Files of the checkout as git sees them; outside a checkout those of the source folders."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    names = listed.stdout.splitlines() if (ROOT / ".git").exists() else []
    files = [ROOT / n for n in names] or [*CPP_FILES, *PYTHON_FILES, *ROOT.glob("tests/**/*.py")]
    return [file for file in files if file.is_file()]


def text_of(file: Path) -> str | None:
    try:
        return file.read_text()
    except UnicodeDecodeError:
        return None


@pytest.mark.parametrize("file", [*CPP_FILES, *PYTHON_FILES], ids=relative)
def test_unit_constants_only_in_units(file: Path) -> None:
    if file == PACKAGE / "units.py":
        return
    found = re.findall(r"27\.211|0\.52917|627\.5|23\.06|51\.422", file.read_text())
    assert not found, f"{relative(file)}: {found} belongs to pymlp/units.py"


def test_no_paths_of_one_machine() -> None:
    folder = re.compile(r"(?:^|[^A-Za-z0-9_.])/(?:work|root|home|Users|opt|farm)/")
    found = [
        f"{relative(file)}:{number}"
        for file in tracked_files()
        if (text := text_of(file)) is not None
        for number, line in enumerate(text.splitlines(), 1)
        if folder.search(line)
    ]
    assert not found


def test_no_file_has_grown_past_splitting() -> None:
    long = {
        relative(file): lines
        for file in tracked_files()
        if file.suffix in {".py", ".h", ".cuh", ".cpp", ".cu"}
        and (text := text_of(file)) is not None
        and (lines := text.count("\n")) > 500
    }
    assert not long, f"split these: {long}"

"""What is built and packed: the wheel, the libraries' dependencies, build_info, refusals."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from pymlp import _C
from tests.build_tree import BUILD, ROOT, alone, run, tool

PACKAGE = ROOT / "pymlp"
OPS = PACKAGE / "_ops.so"
EXTENSION = "_C" + sysconfig.get_config_var("EXT_SUFFIX")

COMMANDS = "compile_commands.json"  # what CMake tells editors


# ---------------------------------------------------------------------------------------- wheel
@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from the checkout as a user builds it, by one worker for all."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "wheel"
    folder.mkdir(exist_ok=True)
    pip = [sys.executable, "-m", "pip", "wheel", str(ROOT), "--no-build-isolation", "--no-deps"]
    # as this one was built, so that compiled objects serve both
    cuda = "0" if _C.build_info()["nvcc"] is None else "1"
    command = [*pip, "--no-index", "--wheel-dir", str(folder)]
    with alone(folder / ".lock"):
        if not any(folder.glob("pymlp-*.whl")):
            result = run(command, env=os.environ | {"PYMLP_CUDA": cuda})
            assert result.returncode == 0, result.stdout
    (file,) = folder.glob("pymlp-*.whl")
    return file


def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    sources = [path for path in PACKAGE.rglob("*") if path.is_file()]
    sources = [path for path in sources if "__pycache__" not in path.parts]
    expected = {str(path.relative_to(ROOT)) for path in sources if path.suffix != ".so"}
    expected |= {"pymlp/_ops.so", f"pymlp/{EXTENSION}"}
    lessons = {f"pymlp/lesson_scripts/{path.name}" for path in (ROOT / "lessons").glob("*.py")}
    assert lessons
    assert set(names) == expected | lessons
    assert "pymlp/py.typed" in names


def test_wheel_is_small_enough_to_share(wheel: Path) -> None:
    assert wheel.stat().st_size < 100e6  # the size that package indexes take


def test_wheel_installs_where_only_torch_is(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "venv"
    result = run([sys.executable, "-m", "venv", "--without-pip", str(environment)])
    assert result.returncode == 0, result.stdout
    python = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps"]
    result = run([*pip, "--no-index", "--force-reinstall", str(wheel)])
    assert result.returncode == 0, result.stdout
    assert "Successfully installed pymlp" in result.stdout, result.stdout
    # torch and the other dependencies, without this environment's own pymlp: a .pth file adds the
    # folder to the path and does not read the .pth files in it
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    code = (
        "import pymlp, torch\n"
        "from pymlp import _C\n"
        "print(pymlp.__file__, _C.__file__, pymlp.__version__ == _C.build_info()['version'])\n"
        "print(torch.ops.pymlp.behler_parrinello)\n"
        "from pymlp.lessons import find\n"
        "print(find('1').path)\n"
    )
    result = run([str(python), "-c", code], cwd=tmp_path)
    assert result.returncode == 0, result.stdout
    assert result.stdout.count(str(environment)) == 3, result.stdout
    assert "True" in result.stdout, result.stdout


def test_no_version_but_one() -> None:
    import pymlp

    assert pymlp.__version__ == _C.build_info()["version"] == importlib.metadata.version("pymlp")


# ------------------------------------------------------------------------------------ libraries
def dynamic_section(library: Path) -> str:
    return run([tool("readelf"), "--dynamic", "--wide", str(library)]).stdout


def undefined_symbols(library: Path) -> list[tuple[str, str]]:
    lines = run([tool("nm"), "--dynamic", "--undefined-only", str(library)]).stdout.splitlines()
    return [(kind, name.split("@")[0]) for kind, name in (line.split()[-2:] for line in lines)]


def test_op_library_uses_only_the_stable_interface_of_torch() -> None:
    symbols = undefined_symbols(OPS)
    torch_c = [name for _, name in symbols if re.match(r"(aoti_)?torch_", name)]
    assert "torch_library_impl" in torch_c
    torch_cpp = [name for _, name in symbols if re.match(r"_ZN?K?(2at|3c10|5torch)", name)]
    assert not torch_cpp, f"bound to one version of torch: {torch_cpp}"
    assert not [name for _, name in symbols if name.startswith(("Py", "_Py"))]
    # absent from a torch without CUDA, where the library must load all the same
    cuda = [(kind, name) for kind, name in symbols if re.search("cuda_stream|cuda_guard", name)]
    assert all(kind == "w" for kind, _ in cuda), cuda


def test_libraries_know_no_folder_of_the_build_machine() -> None:
    for name in ("_ops.so", EXTENSION):
        section = dynamic_section(PACKAGE / name)
        assert "NEEDED" in section
        assert "RPATH" not in section, section
        assert "RUNPATH" not in section, section
        assert not re.search(r"NEEDED.*\[.*/", section), section


@pytest.mark.skipif("avx2" not in _C.build_info()["simd_levels"], reason="one level only")
def test_wide_instructions_stay_in_the_functions_of_their_level() -> None:
    """Else a processor without AVX would crash in an inline function that levels share."""
    listing = run([tool("objdump"), "--disassemble", "--no-show-raw-insn", "-C", str(OPS)]).stdout
    counts: dict[bool, int] = {True: 0, False: 0}
    strays = set()
    for function in re.split(r"^[0-9a-f]+ (?=<)", listing, flags=re.MULTILINE)[1:]:
        name, _, body = function.partition("\n")
        of_a_level = "::avx2::" in name or "::avx512::" in name
        wide = len(re.findall(r"\tv[a-z0-9]+ .*%[xyz]mm", body))  # VEX and EVEX encodings
        counts[of_a_level] += wide
        if wide and not of_a_level:
            strays.add(name)
    assert counts[True] > 1000
    assert not strays


def test_module_is_free_of_torch() -> None:
    assert "torch" not in dynamic_section(PACKAGE / EXTENSION)
    assert not [name for _, name in undefined_symbols(PACKAGE / EXTENSION) if "torch" in name]
    code = "import sys, importlib.util as u\n"
    code += f"spec = u.spec_from_file_location('_C', {str(PACKAGE / EXTENSION)!r})\n"
    code += "u.module_from_spec(spec)\nprint('torch' in sys.modules)\n"
    assert run([sys.executable, "-c", code]).stdout.strip() == "False"


@pytest.mark.skipif(_C.build_info()["nvcc"] is None, reason="built without CUDA")
def test_gpu_code_for_sm_80_sm_90_and_later() -> None:
    assert _C.build_info()["cuda_architectures"] == ["80-real", "90"]
    entries = json.loads((BUILD / COMMANDS).read_text())
    kernels = [entry["command"] for entry in entries if entry["file"].endswith(".cu")]
    assert kernels
    for command in kernels:
        assert re.search(r"arch=compute_80,code=\[?sm_80\]?", command), command
        assert re.search(r"arch=compute_90,code=\[?(compute_90,sm_90|sm_90,compute_90)\]?", command)
        assert "--Werror=all-warnings" in command


# ----------------------------------------------------------------------------------- build_info
def test_build_info_says_what_was_built() -> None:
    info = _C.build_info()
    assert info["simd_levels"][0] == "baseline"
    assert info["best_simd_level"] in info["simd_levels"]
    assert "-ffast-math" not in info["flags"]
    assert "-O3" in info["flags"]
    assert info["compiler"]
    assert info["build_type"] == "Release"
    assert re.fullmatch(r"\d+\.\d+.*", info["torch"])
    if (ROOT / ".git").exists():
        assert re.fullmatch(r"[0-9a-f]{40}\+?", info["commit"]), info["commit"]
    else:
        assert info["commit"] == "unknown"


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="needs Linux's list of flags")
def test_best_level_is_the_processors() -> None:
    flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    if flags is None:
        assert _C.build_info()["best_simd_level"] == "baseline"  # no x86
        return
    has = set(flags[1].split())
    best = "baseline"
    if {"avx2", "fma"} <= has:
        best = "avx2"
    if {"avx512f", "avx512dq", "avx512bw", "avx512vl"} <= has:
        best = "avx512"
    assert _C.build_info()["best_simd_level"] == best


def test_simd_level_can_be_lowered_but_not_misspelt() -> None:
    code = "from pymlp import _C; print(_C.build_info()['simd_level'])"
    lowered = run([sys.executable, "-c", code], env=os.environ | {"PYMLP_SIMD_LEVEL": "baseline"})
    assert lowered.stdout.strip() == "baseline"
    wrong = run([sys.executable, "-c", code], env=os.environ | {"PYMLP_SIMD_LEVEL": "avx3"})
    assert "ValueError: PYMLP_SIMD_LEVEL must be" in wrong.stdout
    assert "'avx3'" in wrong.stdout


# ------------------------------------------------------------------------------------- refusals
def configure(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Configure a build in an empty folder with what the real build knows, changed by options."""
    cache = (BUILD / "CMakeCache.txt").read_text()
    names = ("PYMLP_TORCH_DIR", "Python_EXECUTABLE", "pybind11_DIR", "CMAKE_MAKE_PROGRAM")
    known = {name: re.search(rf"^{name}:\w+=(.*)$", cache, re.MULTILINE) for name in names}
    given = [f"-D{name}={match[1]}" for name, match in known.items() if match]
    command = [tool("cmake"), "-S", str(ROOT), "-B", str(folder), "-G", "Ninja", *given]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("CUDA")}
    return run([*command, *options], env=environment)


def test_cuda_demanded_without_nvcc_is_an_error_that_names_the_cure(tmp_path: Path) -> None:
    nvcc = [Path(p) / "nvcc" for p in os.environ["PATH"].split(os.pathsep)]
    folders = [str(path.parent) for path in nvcc if path.exists()] + ["/usr/local/cuda/bin"]
    hidden = "-DCMAKE_IGNORE_PATH=" + ";".join(folders)
    result = configure(tmp_path, "-DPYMLP_CUDA=1", hidden)
    assert result.returncode != 0
    text = " ".join(result.stdout.split())
    assert "PYMLP_CUDA=1, but no nvcc" in text
    assert "build with PYMLP_CUDA=0" in text


def test_cuda_misspelt_is_refused(tmp_path: Path) -> None:
    result = configure(tmp_path, "-DPYMLP_CUDA=yes")
    assert result.returncode != 0
    assert "PYMLP_CUDA must be auto, 0 or 1, got 'yes'" in " ".join(result.stdout.split())


def test_build_without_torch_is_refused(tmp_path: Path) -> None:
    result = configure(tmp_path, "-DPYMLP_CUDA=0", f"-DPYMLP_TORCH_DIR={tmp_path}")
    assert result.returncode != 0
    assert "Install torch first" in " ".join(result.stdout.split())


def test_metadata_needs_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; sys.argv = ['setup.py', '--version']\n"
    code += "exec(compile(open('setup.py').read(), 'setup.py', 'exec'), {'__name__': '__main__', "
    code += "'__file__': 'setup.py'})"
    result = run([sys.executable, "-c", code], cwd=ROOT)
    assert result.returncode == 0, result.stdout
    assert result.stdout.split()[-1] == importlib.metadata.version("pymlp")


# --------------------------------------------------------------------------------------- import
def test_import_brings_in_nothing_heavy() -> None:
    heavy = ["lightning", "matplotlib", "scipy", "pandas", "sklearn", "pydantic", "typer", "rich"]
    heavy += ["ruamel", "h5py", "tblite", "torchani", "dscribe", "vesin", "ase"]
    code = "import sys, torch; before = set(sys.modules); import pymlp, pymlp.ops\n"
    code += f"print([n for n in {heavy!r} if n in set(sys.modules) - before])"
    result = run([sys.executable, "-c", code])
    assert result.stdout.splitlines()[-1] == "[]", result.stdout


@pytest.fixture
def copied_package(tmp_path: Path) -> Path:
    """The package without its op library, to be imported from tmp_path."""
    ignore = shutil.ignore_patterns("_ops.so", "__pycache__", "*.npz")
    shutil.copytree(PACKAGE, tmp_path / "pymlp", ignore=ignore)
    return tmp_path


def import_ops(folder: Path) -> str:
    code = "import torch; print(torch.__version__); import pymlp; print(pymlp.__file__)\n"
    code += "from pymlp import _C; print(_C.build_info()['version']); import pymlp.ops"
    result = run([sys.executable, "-c", code], cwd=folder, env=os.environ | {"PYTHONPATH": "."})
    assert result.returncode != 0
    version, package, *rest = result.stdout.splitlines()
    assert Path(package).parent == folder / "pymlp"
    message = "\n".join(rest)
    assert "ImportError: pymlp:" in message, message
    assert version in message, message
    assert "pip install . --no-build-isolation" in message, message
    return message


def test_missing_library_is_named_with_the_fix(copied_package: Path) -> None:
    message = import_ops(copied_package)
    assert "no op library" in message
    assert "_ops.so" in message


def test_library_that_does_not_load_is_named_with_what_was_built(copied_package: Path) -> None:
    (copied_package / "pymlp" / "_ops.so").write_bytes(b"not a library")
    message = import_ops(copied_package)
    assert "does not load" in message
    assert "'compiler'" in message
    assert "'cuda_architectures'" in message

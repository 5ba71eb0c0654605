"""What the descriptor ops refuse: ValueError or TypeError that names the argument."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pymlp import _C, ops, pair_ops
from tests.cases import Case, cases

NAMES = ["pair_offsets", "neighbors", "types", "channels", "weights", "radial", "distances"]
NAMES += ["angles", "products", "n_channels", "radial_cutoff", "angular_cutoff", "cutoff_function"]
MOLECULES = [case for case in cases() if case.name in ("bp-molecule", "ani-molecule")]
EACH = pytest.mark.parametrize("case", MOLECULES, ids=str)

Change = Callable[[Any], Any]
#: (argument, what is done to it, error): shapes, dtypes, devices and values
WRONG: dict[str, tuple[str, Change, type[Exception]]] = {
    "displacements [P]": ("displacements", lambda d: d[:, 0], ValueError),
    "displacements [P, 2]": ("displacements", lambda d: d[:, :2], ValueError),
    "displacements too short": ("displacements", lambda d: d[:-1], ValueError),
    "displacements int": ("displacements", lambda d: d.long(), TypeError),
    "displacements half": ("displacements", lambda d: d.half(), TypeError),
    "displacements no tensor": ("displacements", lambda d: d.tolist(), TypeError),
    "pair_offsets int32": ("pair_offsets", lambda o: o.int(), TypeError),
    "pair_offsets [A]": ("pair_offsets", lambda o: o[:-1], ValueError),
    "pair_offsets 2d": ("pair_offsets", lambda o: o[None], ValueError),
    "pair_offsets decreasing": ("pair_offsets", lambda o: o.flip(0), ValueError),
    "pair_offsets past the end": ("pair_offsets", lambda o: o + (o == o[-1]) * 5, ValueError),
    "pair_offsets negative start": ("pair_offsets", lambda o: o - (o == 0) * 2, ValueError),
    "neighbors float": ("neighbors", lambda n: n.double(), TypeError),
    "neighbors too long": ("neighbors", lambda n: torch.cat([n, n]), ValueError),
    "neighbors beyond the atoms": ("neighbors", lambda n: n + 1000, ValueError),
    "neighbors negative": ("neighbors", lambda n: n - 1000, ValueError),
    "types int32": ("types", lambda t: t.int(), TypeError),
    "types beyond the channels": ("types", lambda t: t + 50, ValueError),
    "types negative": ("types", lambda t: t - 50, ValueError),
    "channels float": ("channels", lambda c: c.double(), TypeError),
    "channels beyond n_channels": ("channels", lambda c: c + 9, ValueError),
    "channels negative": ("channels", lambda c: c - 9, ValueError),
    "weights other dtype": ("weights", lambda w: w.float(), TypeError),
    "weights too short": ("weights", lambda w: w[:-1], ValueError),
    "radial 2d": ("radial", lambda r: r[0], ValueError),
    "radial other dtype": ("radial", lambda r: r.float(), TypeError),
    "radial sets": ("radial", lambda r: r.repeat(2, 1, 1), ValueError),
    "distances [D]": ("distances", lambda d: d[:, 0], ValueError),
    "angles [Z, 2]": ("angles", lambda a: a[:, :2], ValueError),
    "products sets": ("products", lambda p: p.repeat(2, 1, 1), ValueError),
    "products [1, S, 3]": ("products", lambda p: torch.cat([p, p[..., :1]], -1), ValueError),
    "products beyond the factors": ("products", lambda p: p + 100, ValueError),
    "n_channels 0": ("n_channels", lambda n: 0, ValueError),
    "radial_cutoff 0": ("radial_cutoff", lambda c: 0.0, ValueError),
    "radial_cutoff negative": ("radial_cutoff", lambda c: -1.0, ValueError),
    "radial_cutoff nan": ("radial_cutoff", lambda c: float("nan"), ValueError),
    "angular_cutoff 0": ("angular_cutoff", lambda c: 0.0, ValueError),
    "cutoff_function 7": ("cutoff_function", lambda c: 7, ValueError),
}


def arguments(case: Case) -> tuple[Tensor, list[Any]]:
    return case.displacements(torch.float64), list(case.rest(torch.float64))


@EACH
@pytest.mark.parametrize("what", WRONG)
def test_wrong_arguments(case: Case, what: str) -> None:
    name, change, error = WRONG[what]
    x, rest = arguments(case)
    if name == "displacements":
        x = change(x)
    else:
        rest[NAMES.index(name)] = change(rest[NAMES.index(name)])
    # one set of radial rows too many may as well be one set of products too few
    with pytest.raises((error, ValueError), match=f"{name}|products" if "sets" in what else name):
        getattr(ops, case.family)(x, *rest)


@EACH
@pytest.mark.parametrize(
    ("suffix", "name"),
    [
        ("_backward", "grad_output"),
        ("_jvp", "tangents"),
        ("_double_backward", "grad_grad_displacements"),
    ],
)
def test_wrong_leading_arguments(case: Case, suffix: str, name: str) -> None:
    x, rest = arguments(case)
    features = x.new_ones(case.neighbourhood.n_atoms, case.n_features)
    good = features if suffix == "_backward" else x
    after = (features,) if suffix == "_double_backward" else ()
    run = getattr(ops, case.family + suffix)
    run(good, *after, x, *rest)
    for wrong, error in ((good[:-1], ValueError), (good[:, :-1], ValueError)):
        with pytest.raises(error, match=name):
            run(wrong, *after, x, *rest)
    with pytest.raises((TypeError, ValueError), match=name):
        run(good.float(), *after, x, *rest)


@pytest.mark.gpu
@EACH
def test_mixed_devices_are_refused(case: Case) -> None:
    x, rest = arguments(case)
    with pytest.raises((ValueError, TypeError, RuntimeError), match="device"):
        getattr(ops, case.family)(x.cuda(), *rest)


@pytest.mark.skipif(
    bool(_C.build_info()["cuda_architectures"]), reason="this build has CUDA kernels"
)
@pytest.mark.parametrize("name", [*ops.OP_NAMES, *pair_ops.OP_NAMES])
def test_cuda_tensors_on_a_build_without_cuda_name_the_fix(name: str) -> None:
    """Calls what a CUDA tensor would be sent to: no GPU is needed for that."""
    overload = getattr(torch.ops.pymlp, name).default
    with pytest.raises(RuntimeError, match=f"pymlp::{name} was .*`PYMLP_CUDA=1 pip install"):
        overload._op_dk(torch._C.DispatchKey.CUDA, *_placeholders(overload))


def _placeholders(overload: Any) -> list[Any]:
    """Something of the right type for every argument."""
    kinds = [str(argument.type) for argument in overload._schema.arguments]
    return [torch.zeros(1) if k == "Tensor" else False if k == "bool" else 1 for k in kinds]


@EACH
def test_too_many_output_elements_are_refused(case: Case) -> None:
    """A [P, F, 3] beyond memory is refused by its size, before anything is written."""
    _, rest = arguments(case)
    n_pairs, n_radial = 40_000, 30_000
    n_atoms = 2
    many = torch.full((n_pairs, 3), 9.0, dtype=torch.float64)
    rest[0] = torch.tensor([0, n_pairs, n_pairs])
    rest[1] = torch.zeros(n_pairs, dtype=torch.int64)
    rest[2] = torch.zeros(n_atoms, dtype=torch.int64)
    rest[5] = torch.zeros(1, n_radial, 3, dtype=torch.float64)
    # 40 000 * 90 000 * 3 * 8 bytes = 86 GB
    with pytest.raises((ValueError, RuntimeError, MemoryError), match=r"(?i)memory|elements|alloc"):
        getattr(ops, case.family + "_jacobian")(many, *rest)


@EACH
def test_fake_shapes_beyond_int32(case: Case) -> None:
    """Shapes past 2^31 elements are computed in 64 bits (no memory: fake tensors)."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    _, rest = arguments(case)
    n_atoms, n_pairs = 60_000_000, 900_000_000
    with FakeTensorMode() as mode:
        fake = [mode.from_tensor(a) if isinstance(a, Tensor) else a for a in rest]
        fake[0] = torch.empty(n_atoms + 1, dtype=torch.int64)
        fake[1] = torch.empty(n_pairs, dtype=torch.int64)
        fake[2] = torch.empty(n_atoms, dtype=torch.int64)
        x = torch.empty(n_pairs, 3, dtype=torch.float64)
        features = getattr(ops, case.family)(x, *fake)
        jacobian = getattr(ops, case.family + "_jacobian")(x, *fake)
    assert features.shape == (n_atoms, case.n_features)
    assert features.numel() > 2**31 or case.n_features < 36
    assert jacobian.shape == (n_pairs, case.n_features, 3)


@pytest.mark.slow
def test_more_than_int32_output_elements() -> None:
    """2.25e9 features (9 GB): the row of the last atom, past 2^31, is that of a small system."""
    case = MOLECULES[0]  # radial sums, the same loop in all families
    x, rest = case.displacements(torch.float32)[:2], list(case.rest(torch.float32))
    etas = torch.linspace(0.01, 4.0, 300)
    rest[5] = torch.stack([etas, torch.zeros(300), torch.ones(300)], dim=1)[None]
    rest[8] = torch.zeros(1, 0, 2, dtype=torch.int64)
    results = []
    for n_atoms in (3, 2_500_000):
        rest[0] = torch.zeros(n_atoms + 1, dtype=torch.int64)
        rest[0][-1] = 2
        rest[1] = torch.tensor([0, 1])
        rest[2] = torch.zeros(n_atoms, dtype=torch.int64)
        rest[2][1] = 2
        features = getattr(ops, case.family)(x, *rest)
        assert features.shape == (n_atoms, 900)
        results.append(features[-1].clone())
        assert not features[-2].any()
        del features
    assert torch.equal(*results)


def test_a_build_without_cuda_kernels_says_so_whatever_the_reason() -> None:
    """The toolkit may be missing, or PYMLP_CUDA=0 may have left the kernels out."""
    with pytest.raises(RuntimeError, match=r"pymlp::ani .* built without .*`PYMLP_CUDA=1") as error:
        ops._refuse_cuda("ani")(torch.zeros(1))
    assert "not found" not in str(error.value)

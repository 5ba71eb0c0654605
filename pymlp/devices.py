"""Which device to compute on: checked once, with the fix in the message."""

from __future__ import annotations

import warnings

import torch

__all__ = ["chosen_device"]

_REBUILD = "rebuild with `PYMLP_CUDA=1 pip install . --no-build-isolation`"


def chosen_device(name: torch.device | str, argument: str = "device") -> torch.device:
    """Return the device of that name, if this torch and this build of pymlp compute on it.

    Args:
        name: ``"cpu"``, ``"cuda"`` or ``"cuda:n"``; ``"auto"`` takes CUDA where there is a GPU and
            pymlp has kernels for it, else the CPU, and warns of a GPU that is left unused.
        argument: what the message calls it.

    Raises:
        ValueError: for another name, a GPU that torch does not see, or a build without kernels.
    """
    from pymlp import _C

    seen = torch.cuda.is_available()
    kernels = bool(_C.build_info()["cuda_architectures"])
    if name == "auto":
        if seen and not kernels:
            warnings.warn(
                "computing on the CPU: there is a GPU, but this build of pymlp has no CUDA "
                f"kernels; {_REBUILD}, or set {argument} to cpu",
                stacklevel=2,
            )
        return torch.device("cuda" if seen and kernels else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ValueError(f"{argument} must be auto, cpu, cuda or cuda:n, got {str(name)!r}")
    if device.type == "cpu":
        return device
    if not seen:
        raise ValueError(f"{argument} is {name}, but torch sees no CUDA device; use cpu")
    if not kernels:
        raise ValueError(
            f"{argument} is {name}, but this build of pymlp has no CUDA kernels; {_REBUILD}, "
            "or use cpu"
        )
    count = torch.cuda.device_count()
    if device.index is not None and device.index >= count:
        raise ValueError(f"{argument} is {name}, but torch sees {count} CUDA device(s), from 0 on")
    return device

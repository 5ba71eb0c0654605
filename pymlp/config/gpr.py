"""The kind "gpr" of run.yaml: ANI features with a Gaussian process."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from pymlp.config.kinds import Kind, register_kind
from pymlp.config.models import AniDescriptor, Device, PositiveFloat, RunConfig, Section

__all__ = ["GaussianProcessRun", "GaussianProcessSection", "WeightedAniDescriptor"]


class WeightedAniDescriptor(AniDescriptor):
    """ANI features: radial eq 1 times a weight, angular eq 6."""

    radial_prefactor: PositiveFloat = Field(
        default=0.6, description="of the radial features; a covariance sees their sizes"
    )


class GaussianProcessSection(Section):
    """Gaussian process (eqs 15-29)."""

    features: Literal["whole", "atomic"] = Field(
        default="whole",
        description="whole: one vector per structure (same atoms in all, in one order); atomic: "
        "the GAP sum over atoms (eq 23), any structures",
    )
    inverse_distances: bool = Field(
        default=True, description="add inverse distances to the features (whole, not periodic)"
    )
    feature_weights: bool = Field(
        default=True,
        description="a length scale for every group of features, by the likelihood (whole, with "
        "energies and forces); false: one for all",
    )
    drop: float = Field(
        default=1e-2,
        ge=0.0,
        lt=1.0,
        description="leave out features that carry less than this share of the Jacobians (whole)",
    )
    covariance: Literal["rbf", "matern52", "rational_quadratic"] | None = Field(
        default=None,
        description="rbf (eq 17), matern52 or rational_quadratic; null: matern52 for whole, "
        "rbf for atomic",
    )
    mean: Literal["zero", "constant", "linear"] = Field(
        default="constant", description="zero, constant, or linear (energies per element)"
    )
    equivalent_atoms: bool = Field(
        default=True, description="find permutations of like atoms and sum over them (whole)"
    )
    likelihood_structures: int = Field(
        default=40, ge=1, description="random structures that hyperparameters are found with"
    )
    restarts: int = Field(default=0, ge=0, description="further starts of that search")
    method: Literal["auto", "cholesky", "cg", "sparse"] = Field(
        default="auto", description="auto: cholesky up to 10 000 observations, else cg; sparse"
    )
    tolerance: PositiveFloat = Field(default=5e-3, description="cg: relative residual")
    components: int = Field(
        default=4, ge=1, description="cg: derivatives per structure in the preconditioner"
    )
    checkpoint_every: int = Field(
        default=10, ge=1, description="cg: iterations between checkpoints (for --resume)"
    )
    inducing: int = Field(default=1000, ge=1, description="sparse: inducing environments")
    approximation: Literal["dtc", "fitc", "pitc"] = Field(
        default="pitc", description="sparse: dtc, fitc or pitc"
    )
    selection: Literal["farthest", "cur", "random"] = Field(
        default="farthest", description="sparse: farthest points, cur or random"
    )
    seed: int = Field(default=0, ge=0, description="of all random choices")
    device: Device = Field(
        default="cpu", description="auto (CUDA where there is one), cpu, cuda or cuda:n"
    )
    threads: int | None = Field(
        default=None, ge=1, description="CPU threads; null: torch's default"
    )


class GaussianProcessRun(RunConfig):
    """ANI features with a Gaussian process on energies and, where the data hold them, forces."""

    kind: Literal["gpr"] = Field(description="ANI features + Gaussian process")
    descriptor: WeightedAniDescriptor
    gaussian_process: GaussianProcessSection = GaussianProcessSection()

    @model_validator(mode="after")
    def _whole_or_atomic(self) -> GaussianProcessRun:
        section = self.gaussian_process
        if section.method == "sparse" and section.features == "whole":
            raise ValueError(
                "gaussian_process.method: sparse has environments as inducing points; set "
                "gaussian_process.features to atomic"
            )
        return self


def _defaults() -> dict[str, Any]:
    return {
        "descriptor": {
            "radial_shifts": [round(0.9 + 0.26875 * k, 5) for k in range(16)],
            "angular_shifts": [0.9, 1.55, 2.2, 2.85],
            "theta_shifts": [11.25 + 22.5 * k for k in range(8)],
        }
    }


register_kind(
    Kind(
        name="gpr",
        summary="ANI features + Gaussian process on energies and forces",
        config=GaussianProcessRun,
        defaults=_defaults,
        trainer="pymlp.gpr_training:train",
        descriptor="pymlp.training.build:ani",
    )
)

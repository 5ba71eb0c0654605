"""What a run.yaml may say: pydantic models, one per section, one run model per kind of potential.

Every field has a description with its unit: it becomes the comment in the file that ``pymlp init``
writes. Paths are relative to the folder of the configuration file.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from pymlp import units

__all__ = [
    "AniDescriptor",
    "AniRun",
    "BehlerParrinelloDescriptor",
    "BehlerParrinelloRun",
    "DataSection",
    "DeepPotDescriptor",
    "DeepPotRun",
    "Device",
    "KeySection",
    "LossSection",
    "NetworkRun",
    "NetworkSection",
    "RunConfig",
    "ScheduleSection",
    "TrainingSection",
    "UnitSection",
]


def _device_name(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", value):
        raise ValueError(f"device must be auto, cpu, cuda or cuda:n, got {value!r}")
    return value


#: Whether there is such a device is looked at where it is used, `pymlp.devices.chosen_device`.
Device = Annotated[str, AfterValidator(_device_name)]
PositiveFloat = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Zeta = Annotated[float, Field(ge=1.0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Channels = Literal["element", "none", "weighted"]
CutoffFunction = Literal["cosine", "smooth"]


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", validate_default=True)


class UnitSection(Section):
    """Units of the data files; inside pymlp everything is eV and Å."""

    length: str = Field(default="Å", description="of coordinates and cell: Å or Bohr")
    energy: str = Field(default="eV", description="eV, meV, Hartree, kcal/mol or kJ/mol")
    force: str = Field(
        default="eV/Å", description="of forces or gradients: eV/Å, Hartree/Bohr, ..."
    )

    @field_validator("length", "energy", "force")
    @classmethod
    def _known(cls, value: str, info: object) -> str:
        units.factor(value, info.field_name)  # type: ignore[attr-defined]
        return value


class KeySection(Section):
    """Names under which the data files store their labels."""

    energy: str = Field(default="energy", description="energies")
    forces: str | None = Field(
        default=None, description="forces (or null, where the file has gradients)"
    )
    gradient: str | None = Field(
        default=None, description="energy gradients, that is minus the forces"
    )
    baseline_energy: str | None = Field(
        default=None, description="energies of the lower level of theory (target: delta)"
    )
    baseline_forces: str | None = Field(default=None, description="its forces")
    baseline_gradient: str | None = Field(default=None, description="or its gradients")


class DataSection(Section):
    """Structures and labels."""

    train: str = Field(description="file, or a part of it: file@start:stop (as in Python)")
    validation: str = Field(description="file or part: not trained on, picks the best epoch")
    n_train: int | None = Field(
        default=None, ge=1, description="use the first n training structures; null: all"
    )
    target: Literal["total", "delta"] = Field(
        default="total", description="total: the labels; delta: labels minus baseline (Δ-learning)"
    )
    units: UnitSection = UnitSection()
    keys: KeySection = KeySection()

    @model_validator(mode="after")
    def _consistent(self) -> DataSection:
        keys = self.keys
        if keys.forces is not None and keys.gradient is not None:
            raise ValueError("keys.forces and keys.gradient exclude each other: set one to null")
        if self.target == "delta" and keys.baseline_energy is None:
            raise ValueError("target: delta needs keys.baseline_energy")
        if keys.baseline_forces is not None and keys.baseline_gradient is not None:
            raise ValueError(
                "keys.baseline_forces and keys.baseline_gradient exclude each other: "
                "set one to null"
            )
        return self


class BehlerParrinelloDescriptor(Section):
    """Behler-Parrinello symmetry functions (eqs 1-5)."""

    cutoff: PositiveFloat = Field(default=6.0, description="R_c, Å")
    angular_cutoff: PositiveFloat | None = Field(
        default=None, description="of the angular terms, Å; null: the same"
    )
    channels: Channels = Field(
        default="element",
        description="element: a sum per neighbour element; none; weighted (wACSF)",
    )
    angular_form: Literal["g4", "g5"] = Field(
        default="g4", description="g4: eq 3; g5: without the factors of the third distance"
    )
    cutoff_function: CutoffFunction = Field(
        default="cosine", description="cosine: eq 2; smooth: C-infinity"
    )
    radial: list[tuple[NonNegativeFloat, Finite]] = Field(
        description="rows [η (1/Å²), R_s (Å)] of eq 1"
    )
    angular: list[tuple[NonNegativeFloat, Zeta, Finite]] = Field(
        description="rows [η (1/Å²), ζ, θ_s (degrees, 0 or 180)] of eq 3"
    )

    @model_validator(mode="after")
    def _some_features(self) -> BehlerParrinelloDescriptor:
        if self.angular_cutoff is not None and self.angular_cutoff > self.cutoff:
            raise ValueError(
                f"angular_cutoff ({self.angular_cutoff} Å) must not exceed cutoff ({self.cutoff} Å)"
            )
        if not self.radial and not self.angular:
            raise ValueError("radial and angular are both empty: no features are left")
        return self


class AniDescriptor(Section):
    """ANI features: radial eq 1, angular eq 6."""

    radial_cutoff: PositiveFloat = Field(default=5.2, description="Å")
    angular_cutoff: PositiveFloat = Field(default=3.5, description="Å")
    channels: Channels = Field(
        default="element",
        description="element: a sum per neighbour element; none; weighted (wACSF)",
    )
    cutoff_function: CutoffFunction = Field(
        default="cosine", description="cosine: eq 2; smooth: C-infinity"
    )
    radial_eta: NonNegativeFloat = Field(default=16.0, description="η of eq 1, 1/Å²")
    radial_shifts: list[Finite] = Field(description="R_s of eq 1, Å")
    angular_eta: NonNegativeFloat = Field(default=8.0, description="η of eq 6, 1/Å²")
    angular_shifts: list[Finite] = Field(description="R_s of eq 6, Å")
    zeta: Zeta = Field(default=32.0, description="ζ of eq 6")
    theta_shifts: list[Finite] = Field(description="θ_s of eq 6, degrees")

    @model_validator(mode="after")
    def _consistent(self) -> AniDescriptor:
        if self.angular_cutoff > self.radial_cutoff:
            raise ValueError(
                f"angular_cutoff ({self.angular_cutoff} Å) must not exceed radial_cutoff "
                f"({self.radial_cutoff} Å)"
            )
        return self


class DeepPotDescriptor(Section):
    """DeepPot-SE (eqs 7-11): environment matrix and embedding networks."""

    embedding: list[Annotated[int, Field(ge=1)]] = Field(
        default=[25, 50, 100],
        min_length=1,
        description="widths of the embedding networks; the last is m1",
    )
    n_axis: int = Field(default=4, ge=1, description="m2")
    switch: Literal["none", "cosine", "quintic"] = Field(
        default="none",
        description="none: s = 1/R, for molecules; cosine: eq 9; quintic: DeePMD's",
    )
    switch_start: NonNegativeFloat | None = Field(
        default=None, description="R_cs, Å; null with switch: none"
    )
    cutoff: PositiveFloat | None = Field(default=None, description="R_c, Å; null with switch: none")
    normalize: Literal["neighbors"] | PositiveFloat | None = Field(
        default=None,
        description="divide sums by a number, or by the number of neighbors; null: as they are",
    )
    sharing: Literal["type_pair", "neighbor_only"] = Field(
        default="type_pair",
        description="a network per pair of elements (type_pair) or per neighbour (neighbor_only)",
    )
    use_radial_column: bool = Field(
        default=True, description="true: eq 11; false: as in the tutorial's lesson"
    )

    @model_validator(mode="after")
    def _consistent(self) -> DeepPotDescriptor:
        if self.n_axis > self.embedding[-1]:
            raise ValueError(
                f"n_axis ({self.n_axis}) must not exceed the last width of embedding "
                f"({self.embedding[-1]})"
            )
        given = self.switch_start is not None, self.cutoff is not None
        if self.switch == "none" and any(given):
            raise ValueError("switch: none takes neither switch_start nor cutoff: set both to null")
        if self.switch != "none":
            if not all(given):
                raise ValueError(f"switch: {self.switch} needs switch_start and cutoff")
            if self.switch_start >= self.cutoff:  # type: ignore[operator]
                raise ValueError(
                    f"switch_start ({self.switch_start} Å) must be below cutoff ({self.cutoff} Å)"
                )
            if self.normalize == "neighbors":
                raise ValueError("normalize: neighbors goes with switch: none alone")
        return self


class NetworkSection(Section):
    """Feed-forward networks, one per element (eqs 12, 13)."""

    hidden: list[Annotated[int, Field(ge=1)]] = Field(
        default=[64, 64], description="hidden layer widths"
    )
    activation: Literal["tanh", "sigmoid", "sin", "silu", "celu", "gelu", "relu"] = Field(
        default="silu",
        description="tanh, sigmoid, sin, silu, celu, gelu (relu: for energies alone)",
    )
    residual: bool = Field(
        default=False,
        description="add a hidden layer's input to its output where the width stays or doubles",
    )
    feature_floor: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        default=0.05, description="smallest spread that features are scaled by / largest one"
    )
    whitening: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        default=0.0,
        description="train on principal components, divided by their spread, none of which counts "
        "for less than this share of the largest variance; 0: on the features as they are",
    )
    committee: int = Field(
        default=1, ge=1, description="number of networks; their spread is the reported uncertainty"
    )


class LossSection(Section):
    """Loss (eq 14): w_E MSE(E) + w_F MSE(F), weights normalised to the sum 1."""

    energy: NonNegativeFloat = Field(default=1.0, description="w_E")
    force_start: NonNegativeFloat = Field(
        default=100.0,
        description="w_F at the initial learning rate; 0 with force_end 0: energies only",
    )
    force_end: NonNegativeFloat = Field(
        default=1.0,
        description="w_F at zero learning rate; between: w_F = end + (start - end) lr/lr0",
    )

    @model_validator(mode="after")
    def _not_all_zero(self) -> LossSection:
        if self.energy + self.force_end <= 0.0 or self.energy + self.force_start <= 0.0:
            raise ValueError("energy and force weights must not both be zero")
        return self


class ScheduleSection(Section):
    """How the learning rate falls."""

    kind: Literal["cosine", "exponential", "plateau", "constant"] = Field(
        default="cosine", description="cosine, exponential, plateau or constant"
    )
    final: PositiveFloat = Field(
        default=1e-3, le=1.0, description="cosine, plateau: smallest learning rate / initial one"
    )
    decay: PositiveFloat = Field(
        default=0.95, le=1.0, description="exponential: factor of one reduction"
    )
    decay_every: int = Field(default=10, ge=1, description="exponential: epochs between reductions")
    plateau_factor: PositiveFloat = Field(default=0.5, lt=1.0, description="plateau: one reduction")
    plateau_patience: int = Field(
        default=20, ge=1, description="plateau: validations without gain before a reduction"
    )
    warmup: Fraction = Field(default=0.0, description="part of all steps with linearly rising rate")


class TrainingSection(Section):
    """Optimisation."""

    epochs: int = Field(default=300, ge=1, description="passes over the training structures")
    batch_size: int = Field(default=32, ge=1, description="structures per step")
    learning_rate: PositiveFloat = Field(default=5e-3, description="initial; Adam")
    descriptor_rate: PositiveFloat = Field(
        default=1.0, description="learning rate of a descriptor's weights / of the networks'"
    )
    weight_decay: NonNegativeFloat = Field(default=0.0, description="AdamW's; 0: Adam")
    schedule: ScheduleSection = ScheduleSection()
    loss: LossSection = LossSection()
    ema: Fraction = Field(
        default=0.999, description="exponential moving average of the weights, per step; 0: off"
    )
    gradient_clip: NonNegativeFloat = Field(
        default=0.0, description="largest norm of the loss gradient; 0: no clipping"
    )
    early_stopping: int = Field(
        default=0, ge=0, description="stop after this many validations without gain; 0: never"
    )
    validate_every: int = Field(default=1, ge=1, description="epochs between validations")
    checkpoint_every: int = Field(
        default=10, ge=1, description="epochs between checkpoints (for --resume)"
    )
    seed: int = Field(
        default=0, ge=0, description="weights and shuffling; member k of a committee: seed+k"
    )
    precision: Literal["float32", "float64"] = Field(
        default="float32", description="of features and networks in training"
    )
    device: Device = Field(
        default="auto", description="auto (CUDA where there is one), cpu, cuda or cuda:n"
    )
    threads: int | None = Field(
        default=None, ge=1, description="CPU threads; null: torch's default"
    )
    cache_limit_gb: NonNegativeFloat = Field(
        default=2.0, description="features above this size (GB) are computed anew for each batch"
    )


class RunConfig(Section):
    """What every kind of run has."""

    kind: str = Field(description="kind of potential")
    elements: list[str] = Field(min_length=1, description="elements that the potential knows")
    data: DataSection

    @field_validator("elements")
    @classmethod
    def _elements(cls, value: list[str]) -> list[str]:
        from ase.data import atomic_numbers

        unknown = [name for name in value if atomic_numbers.get(name, 0) < 1]
        if unknown:
            raise ValueError(f"unknown element symbol(s) {unknown}")
        if len(set(value)) != len(value):
            raise ValueError(f"elements are listed twice: {value}")
        return value


class NetworkRun(RunConfig):
    """A descriptor with per-element networks."""

    network: NetworkSection = NetworkSection()
    training: TrainingSection = TrainingSection()

    @property
    def trains_on_forces(self) -> bool:
        """Whether the loss has a force term."""
        return self.training.loss.force_start + self.training.loss.force_end > 0.0

    @model_validator(mode="after")
    def _forces_can_be_trained(self) -> NetworkRun:
        keys = self.data.keys
        if not self.trains_on_forces:
            return self
        if keys.forces is None and keys.gradient is None:
            raise ValueError(
                "training.loss has a force weight, but data.keys names neither forces nor "
                "gradient; set one, or set force_start and force_end to 0"
            )
        if self.data.target == "delta" and (
            keys.baseline_forces is None and keys.baseline_gradient is None
        ):
            raise ValueError(
                "training.loss has a force weight, but data.keys names neither baseline_forces "
                "nor baseline_gradient, which target: delta needs"
            )
        if self.network.activation == "relu":
            raise ValueError(
                "network.activation: relu has no second derivative and cannot be trained on "
                "forces; choose tanh or silu, or set training.loss.force_start and force_end to 0"
            )
        return self


class BehlerParrinelloRun(NetworkRun):
    """Behler-Parrinello symmetry functions with networks."""

    kind: Literal["bp-fnn"] = Field(description="Behler-Parrinello features + networks")
    descriptor: BehlerParrinelloDescriptor


class AniRun(NetworkRun):
    """ANI features with networks."""

    kind: Literal["ani-fnn"] = Field(description="ANI features + networks")
    descriptor: AniDescriptor


class DeepPotRun(NetworkRun):
    """DeepPot-SE with networks."""

    kind: Literal["deeppot-fnn"] = Field(description="DeepPot-SE features + networks")
    descriptor: DeepPotDescriptor = DeepPotDescriptor()

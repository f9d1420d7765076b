"""Settings that the recipes have in common that draw images from noise."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from distgan.config.image_sizes import DOUBLED, SizeRule, doublings
from distgan.config.sections import Fraction, Positive
from distgan.config.settings import Run
from distgan.data.ada import Operation
from distgan.engine.player import HalfLife
from distgan.monitor.settings import Neutral

Side = Literal[4, 8, 16, 32, 64, 128]
CHANNELS = (
    "{} channels at half the size of an image, as 32x32 of 64x64; twice as many at each half of"
    " that, at most 8 times"
)


class ImageSettings(Run):
    """Settings of a recipe whose networks start from a small grid and double it."""

    sizes: ClassVar[SizeRule] = DOUBLED

    conditional: Annotated[bool, Neutral(False)] = Field(
        False, description="give both networks the class of each image, from the data set's labels"
    )
    label: Annotated[str | None, Neutral(None)] = Field(
        None,
        description="of conditional networks, the column of labels; null: the only one there is",
    )
    class_share: Annotated[Literal["training", "uniform"], Neutral("training")] = Field(
        "training",
        description=(
            "of conditional networks, how often each class is drawn for evaluation and samples:"
            " training, as often as in the training set; uniform, all alike"
        ),
    )

    ema_kimg: Annotated[Positive | None, Neutral(None)] = Field(
        None,
        description=(
            "half-life of the generator's moving average in thousand images (10, say), in place of"
            " `ema`; null: by `ema`"
        ),
    )
    ema_rampup: Annotated[Positive | None, Neutral(0.05)] = Field(
        0.05,
        description=(
            "of ema_kimg: the half-life is at most this share of the images so far; null: no ramp"
        ),
    )

    freeze_d: Annotated[int, Neutral(0)] = Field(
        0,
        ge=0,
        le=6,
        description=(
            "of fine_tune: keep the first blocks of D, those nearest the image, as they were"
            " trained, so many resolutions (FreezeD): at most as many as the shorter side can be"
            " halved down to 4 pixels, 4 for 64x64"
        ),
    )

    ada: Annotated[bool, Neutral(False)] = Field(
        False,
        description=(
            "change what D sees, reals and samples, the more often the more D overfits (adaptive"
            " discriminator augmentation)"
        ),
    )
    ada_target: Annotated[float, Neutral(0.75)] = Field(
        0.75,
        gt=-1,
        lt=1,
        description=(
            "what ada aims at: the mean sign of D's output for a training real less that for the"
            " sample beside it"
        ),
    )
    ada_kimg: Annotated[Positive, Neutral(500)] = Field(
        500, description="thousand images in which the strength of ada can go from 0 to 1"
    )
    ada_every: Annotated[int, Neutral(4)] = Field(
        4, gt=0, description="global batches between two adjustments of the strength of ada"
    )
    ada_operations: Annotated[
        tuple[Operation, ...],
        Neutral(("flip", "turn", "translation", "geometry", "color", "cutout")),
    ] = Field(
        ("flip", "turn", "translation", "geometry", "color", "cutout"),
        description="what ada does, each with its strength as the chance",
    )
    ada_limit: Annotated[Fraction, Neutral(0.8)] = Field(
        0.8, description="largest strength of ada; above 0.8 G may draw changed images"
    )

    @field_validator("freeze_d")
    @classmethod
    def _of_a_trained_network(cls, value: int, info: ValidationInfo) -> int:
        if value and not info.data.get("fine_tune"):
            raise ValueError("only trained networks have blocks to keep: fine_tune=RUN@best")
        return value

    @field_validator("label", "class_share", "ema_rampup")
    @classmethod
    def _beside_another(cls, value: Any, info: ValidationInfo) -> Any:
        name = str(info.field_name)
        if value != cls.model_fields[name].default:
            if name == "ema_rampup" and info.data.get("ema_kimg") is None:
                raise ValueError("it limits ema_kimg, which is not given")
            if name != "ema_rampup" and not info.data.get("conditional"):
                raise ValueError("only conditional networks are given classes: conditional=true")
        return value

    @property
    def label_column(self) -> str | None:
        return (self.label or "") if self.conditional else None

    @property
    def average(self) -> float | HalfLife | None:
        """The moving average of the generator, by update or in images; None for none."""
        if self.ema_kimg is not None:
            return HalfLife(self.ema_kimg * 1000, self.ema_rampup, self.batch)
        return getattr(self, "ema", None)

    @property
    def updates_per_step(self) -> dict[str, int]:
        return {"D": self.batches_per_step, "G": getattr(self, "g_steps", 1)}

    def attention_for(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the resolutions with attention for images of this shape.

        16, where it is the default, means 8 for images of 16x16, which have no layer of 16.
        """
        chosen = getattr(self, "attention", ())
        largest = resolutions(shape)[-1]
        usual = bool(chosen) and chosen == type(self).model_fields["attention"].default
        return tuple(min(side, largest) for side in chosen) if usual else chosen

    def refusal(self, shape: tuple[int, ...]) -> str | None:
        """Refuse attention at a resolution that networks for these images do not have, and more
        blocks of D.
        """
        present = resolutions(shape)
        if self.freeze_d > len(present):
            return (
                f"freeze_d: found {self.freeze_d}; at most {len(present)} blocks of D can be kept"
                f" for images of {shape[2]}x{shape[1]} pixels"
            )
        if missing := set(self.attention_for(shape)) - set(present):
            return (
                f"attention: no layer has the resolution {min(missing)} for images of"
                f" {shape[2]}x{shape[1]} pixels; there are {', '.join(map(str, present))}"
            )
        return None


def resolutions(shape: tuple[int, ...]) -> list[int]:
    """Return the shorter sides of the layers for images of this shape: 4, 8, 16, 32 for 64x64."""
    return [4 << i for i in range(doublings(*shape[1:]))]

"""Settings that the recipes have in common that draw images from noise."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from distgan.config.image_sizes import DOUBLED, SizeRule, doublings
from distgan.config.settings import Run
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

    @field_validator("label", "class_share")
    @classmethod
    def _of_conditional(cls, value: Any, info: ValidationInfo) -> Any:
        usual = cls.model_fields[str(info.field_name)].default
        if not info.data.get("conditional") and value != usual:
            raise ValueError("only conditional networks are given classes: conditional=true")
        return value

    @property
    def label_column(self) -> str | None:
        return (self.label or "") if self.conditional else None

    def attention_for(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the resolutions with attention for images of this shape.

        16, where it is the default, means 8 for images of 16x16, which have no layer of 16.
        """
        chosen = getattr(self, "attention", ())
        largest = resolutions(shape)[-1]
        usual = bool(chosen) and chosen == type(self).model_fields["attention"].default
        return tuple(min(side, largest) for side in chosen) if usual else chosen

    def refusal(self, shape: tuple[int, ...]) -> str | None:
        """Refuse attention at a resolution that networks for these images do not have."""
        present = resolutions(shape)
        if missing := set(self.attention_for(shape)) - set(present):
            return (
                f"attention: no layer has the resolution {min(missing)} for images of"
                f" {shape[2]}x{shape[1]} pixels; there are {', '.join(map(str, present))}"
            )
        return None


def resolutions(shape: tuple[int, ...]) -> list[int]:
    """Return the shorter sides of the layers for images of this shape: 4, 8, 16, 32 for 64x64."""
    return [4 << i for i in range(doublings(*shape[1:]))]

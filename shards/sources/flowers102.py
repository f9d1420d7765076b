"""Oxford 102 Flowers (Nilsback and Zisserman 2008), from the published files -> square 8-bit colour
images.

All 8,189 photographs: the official train, val and test sets (1,020, 1,020 and 6,149) together.
`--splits` takes some of them. The train/validation split of the shards is drawn anew, by content,
so that a repeated photograph stays on one side; it holds out 5 %, half of the share of other
sources, because the system trains on all.

Images are treated as those of the source `images`: by default the largest centred square, reduced
with Lanczos. `--fit squash` takes the whole photograph: it keeps the border, mostly leaves, and
makes round flowers oval by a different amount in every image; the photographs are centred on the
flower. A Fréchet distance holds for one treatment: those of the two are not comparable.

The md5 of each published file in the folder is checked; it covers the photographs only in
102flowers.tgz, so that archive is used if it exists, and the unpacked folder jpg/ otherwise. The
archive is compressed as one stream, but writers need random access; so its photographs are unpacked
once into one temporary file (345 MB, in TMPDIR, removed at the end, though not by a killed
process). No name from the archive becomes the name of a file. Both ways give the same shards.

The species are the column of labels `species`, with their published names.

A sample is `image_NNNNN.png` (or .jpg, .npy: `--payload`) and `image_NNNNN.json`: file, label
1..102 as published, official split, and width, height and mode of the photograph.
"""

import gzip
import hashlib
import io
import json
import os
import re
import tarfile
import tempfile
import weakref
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from distgan.core import console
from distgan.core.arguments import Arguments, Option, switch, whole
from distgan.core.errors import ConfigError, DataError
from distgan.shards.codecs import image as image_codec
from distgan.shards.codecs import image_files
from distgan.shards.codecs.fitting import FIT
from distgan.shards.format.labels import FLOWERS
from distgan.shards.sources._base import SourceReport
from distgan.shards.sources.images import (
    SIZES,
    ImageReport,
    encode,
    fitted,
    inspect_all,
    inspect_image,
    reason,
)

EXAMPLES = [
    (
        "all 8,189 photographs at 64 x 64; --help says which files FOLDER must hold",
        "distgan shard flowers102 OUT --from FOLDER",
    ),
    (
        "the whole photographs, squashed to squares, as torchvision's Resize((64, 64)) does",
        "distgan shard flowers102 OUT --from FOLDER --fit squash",
    ),
    (
        "only the official test set, larger, decoded faster when training",
        "distgan shard flowers102 OUT --from FOLDER --splits test --size 128 --payload raw",
    ),
]
RECIPE = "wgan_flowers"
# the system trains on all images; its monitor needs some that D has not seen, and the last score is
# against all of them
VALIDATION = 0.05

PAGE = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"
ARCHIVE, LABELS, SETS = "102flowers.tgz", "imagelabels.mat", "setid.mat"
MD5 = {
    ARCHIVE: "52808999861908f626f3c1f4e79d11fa",
    LABELS: "e0620be6f572b9609742df49c70aed4d",
    SETS: "a5357ecc9cb78c4bef273ce3793fc85c",
}
SPLITS = {"train": "trnid", "val": "valid", "test": "tstid"}  # and their names in setid.mat
LARGEST_BYTES = 1 << 24  # of a photograph; the published ones are far smaller
_MEMBER = re.compile(r"(?:\./)?jpg/image_(\d{5})\.jpg")


def _splits(text: str) -> list[str]:
    names = list(SPLITS) if text == "all" else text.split(",")
    if not set(names) <= set(SPLITS):
        raise ValueError
    return names


OPTIONS = (
    Option(
        "from",
        f"the folder of {ARCHIVE}, {LABELS} and {SETS} from {PAGE}, or of torchvision's folder"
        " flowers-102 (with jpg/ the archive is not needed)",
        "FOLDER",
        dest="folder",
        required=True,
    ),
    whole("size", "width and height in pixels", *SIZES, default=64),
    FIT,
    Option(
        "splits",
        "official sets to use, separated by commas",
        "NAMES",
        default=list(SPLITS),
        allowed=f"{', '.join(SPLITS)}, separated by commas, or all",
        read=_splits,
    ),
    switch(
        "unofficial",
        "the files are not the published ones, but a subset or others of this layout: do not"
        " compare their md5",
    ),
    image_codec.PAYLOAD,
)


class Source:
    def __init__(self, args: Arguments):
        self.folder = _find(Path(args.folder))
        self.size, self.payload, self.fit = args.size, args.payload, args.fit
        self._notes = [_check_md5(self.folder, args.unofficial)]
        self.labels, self.splits = _read_sets(self.folder, args.splits)
        self.numbers = sorted(self.splits)
        self.keys = [f"image_{number:05d}" for number in self.numbers]
        self.unpacked = ""
        self.members: dict[int, tuple[int, int]] = {}  # number -> offset, size in `unpacked`
        if (self.folder / ARCHIVE).is_file():
            self._unpack()
        else:
            self._notes.append(
                f"read from jpg/, without {ARCHIVE}: no published md5 covers the photographs, each"
                " was decoded"
            )
        self._require_photographs()
        self.options: dict[str, Any] = {
            "size": args.size,
            "fit": args.fit,
            "splits": ",".join(name for name in SPLITS if name in args.splits),
            "payload": args.payload,
            "from": self._contents(),
        }
        self.origin: dict[str, Any] = {"folder": args.folder}
        self.sample: dict[str, Any] = {
            "kind": "image",
            "channels": 3,
            "size": args.size,
            "field": image_codec.FIELDS[args.payload],
        }
        self.label_columns = {FLOWERS.name: FLOWERS.entry()}
        self.reports: list[ImageReport] = []

    def label_of(self, i: int) -> dict[str, int]:
        """Return the label of the species, 1 to 102."""
        return {FLOWERS.name: self.labels[self.numbers[i]]}

    def check(self, workers: int) -> SourceReport:
        """Decode every photograph once."""
        names = [f"{key}.jpg" for key in self.keys]
        self.reports, issues = inspect_all(self._inspect, range(len(self.keys)), names, workers)
        counts = [
            f"{list(self.splits.values()).count(name)} {name}"
            for name in self.options["splits"].split(",")
        ]
        together = f"official sets, together: {', '.join(counts)}"
        fit = fitted(names, self.reports, self.size, self.fit)
        return SourceReport(issues, [together, *self._notes, fit])

    def group(self, i: int) -> str:
        """Return the hash of the pixels: photographs with the same pixels are one group."""
        return self.reports[i].digest

    def make(self, i: int) -> dict[str, Any]:
        number, file = self.numbers[i], f"{self.keys[i]}.jpg"
        try:
            image, original = image_files.picture(io.BytesIO(self._read(i)))
        except Exception as error:
            raise DataError(
                f"{file} could be read when it was checked, not any more: {reason(error)}"
            ) from error
        field, data = encode(image, self.size, 3, self.payload, self.fit)
        record = {"file": file, "label": self.labels[number], "split": self.splits[number]}
        return {
            "__key__": self.keys[i],
            field: data,
            "json": json.dumps(record | original).encode(),
        }

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "reports": []}

    def _inspect(self, i: int) -> ImageReport:
        try:
            return inspect_image(io.BytesIO(self._read(i)), self.size, fit=self.fit)
        except OSError as error:
            return ImageReport(error=f"unreadable: {reason(error)}")

    def _read(self, i: int) -> bytes:
        """Read the JPEG file of sample i."""
        if not self.unpacked:
            return (self.folder / "jpg" / f"{self.keys[i]}.jpg").read_bytes()
        offset, size = self.members[self.numbers[i]]
        with open(self.unpacked, "rb") as file:
            return os.pread(file.fileno(), size, offset)

    def _contents(self) -> str:
        """Hash photographs, labels and sets; equal for archive and folder."""
        total = hashlib.sha256()
        with console.bar("hashing", len(self.keys), "images") as bar:
            for i, number in enumerate(self.numbers):
                total.update(f"{number} {self.labels[number]} {self.splits[number]}\0".encode())
                try:
                    total.update(hashlib.sha256(self._read(i)).digest())
                except OSError:
                    total.update(b"unreadable")  # `check` reports it
                bar.advance()
        return f"{len(self.keys)} images with sha256 {total.hexdigest()[:16]}"

    def _unpack(self) -> None:
        """Unpack the chosen photographs into one temporary file, deleted with this source."""
        archive = self.folder / ARCHIVE
        try:
            handle, self.unpacked = tempfile.mkstemp(prefix="distgan-flowers102-")
            weakref.finalize(self, Path(self.unpacked).unlink, missing_ok=True)
            with (
                open(handle, "wb") as file,
                gzip.open(archive) as stream,
                tarfile.open(fileobj=stream, mode="r|") as members,
                console.bar("unpacking", len(self.numbers), "images") as bar,
            ):
                for member in members:
                    match = _MEMBER.fullmatch(member.name)
                    _refuse_unsafe(archive, member, is_photograph=match is not None)
                    if match and (number := int(match[1])) in self.splits:
                        if number in self.members:
                            raise DataError(f"{archive}: member {member.name} occurs twice")
                        self.members[number] = (file.tell(), member.size)
                        content = members.extractfile(member)
                        assert content is not None  # a plain file
                        file.write(content.read())
                        bar.advance()
                while stream.read(1 << 20):
                    pass  # to the checksum at the end
        except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise DataError(
                f"{archive} is damaged, or not a gzipped tar: {error}; download it again:"
                f" {PAGE}{ARCHIVE}"
            ) from error
        except OSError as error:
            raise DataError(
                f"cannot unpack {archive} into {tempfile.gettempdir()}: {error.strerror or error}; "
                "set TMPDIR to a folder with enough space, or unpack jpg/ and move the archive away"
            ) from error

    def _require_photographs(self) -> None:
        """Raise DataError if the archive or jpg/ lacks a photograph that setid.mat lists."""
        path = self.folder / (ARCHIVE if self.unpacked else "jpg")
        if self.unpacked:
            missing = [number for number in self.numbers if number not in self.members]
        else:
            files = {number: path / f"image_{number:05d}.jpg" for number in self.numbers}
            missing = [number for number, file in files.items() if not file.is_file()]
        if missing:
            raise DataError(
                f"{path} lacks {len(missing)} of {len(self.numbers)} photographs that {SETS}"
                f" lists, such as image_{missing[0]:05d}.jpg; download it again: {PAGE}{ARCHIVE}"
            )


def _find(folder: Path) -> Path:
    """Return `folder`, or flowers-102 in it, whichever has the published files.

    ConfigError that lists all of them if some are missing.
    """
    if not folder.is_dir():
        raise ConfigError(f"--from {folder}: no such folder")
    candidates = (
        path
        for path in (folder, folder / "flowers-102")
        if any((path / name).exists() for name in (*MD5, "jpg"))
    )
    path = next(candidates, folder)
    missing = [
        name
        for name in MD5
        if not (path / name).is_file() and not (name == ARCHIVE and (path / "jpg").is_dir())
    ]
    if missing:
        files = "\n".join(f"  {PAGE}{name}{'' if name in missing else '  (there)'}" for name in MD5)
        raise ConfigError(
            f"--from {folder}: lacks {', '.join(missing)}; download these files into"
            f" {path}:\n{files}\nthe archive may also be unpacked there, as jpg/image_00001.jpg"
            " and so on"
        )
    return path


def _check_md5(folder: Path, unofficial: bool) -> str:
    """Return a note about the check; DataError for a file that is not the published one."""
    if unofficial:
        return "not compared with the published md5: --unofficial"
    files = [name for name in MD5 if (folder / name).is_file()]
    with console.bar("checking md5", len(files), "files") as bar:
        for name in files:
            with open(folder / name, "rb") as file:
                digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
            if (md5 := digest.hexdigest()) != MD5[name]:
                raise DataError(
                    f"{folder / name} is not the published file: md5 {md5}, expected {MD5[name]};"
                    f" download it again: {PAGE}{name}\nif it is a subset or another set of this"
                    " layout on purpose, add --unofficial"
                )
            bar.advance()
    return f"with the published md5: {', '.join(files)}"


def _read_sets(folder: Path, chosen: list[str]) -> tuple[dict[int, int], dict[int, str]]:
    """Return {number: label 1..102} and {number: official split} of the chosen splits."""
    (labels,) = _load_mat(folder / LABELS, ["labels"])
    splits: dict[int, str] = {}
    for name, numbers in zip(SPLITS, _load_mat(folder / SETS, list(SPLITS.values())), strict=True):
        for number in numbers:
            if number in splits or not 1 <= number <= len(labels):
                error = f"has no label; {LABELS} has {len(labels)}"
                if number in splits:
                    error = f"is also in {SPLITS[splits[number]]}"
                raise DataError(f"{folder / SETS}: photograph {number} in {SPLITS[name]} {error}")
            splits[number] = name
    if wrong := [label for label in labels if label not in FLOWERS.numbers]:
        raise DataError(
            f"{folder / LABELS}: label {wrong[0]}; labels are 1 to {len(FLOWERS.values)}"
        )
    splits = {number: name for number, name in splits.items() if name in chosen}
    return {number: labels[number - 1] for number in splits}, splits


def _load_mat(path: Path, names: list[str]) -> list[list[int]]:
    """Load the named integer arrays of a MATLAB file."""
    from scipy.io import loadmat  # half a second that the help of other sources does not need

    try:
        arrays = loadmat(path)
    except Exception as error:  # any exception, if the file is damaged
        raise DataError(f"{path} cannot be read as a MATLAB file: {reason(error)}") from error
    for name in names:
        if name not in arrays or arrays[name].dtype.kind not in "iu":
            raise DataError(
                f"{path} has no integer array {name!r}; it has:"
                f" {', '.join(key for key in arrays if key[0] != '_') or 'nothing'}"
            )
    return [np.ravel(arrays[name]).tolist() for name in names]


def _refuse_unsafe(archive: Path, member: tarfile.TarInfo, is_photograph: bool) -> None:
    """Raise DataError for a photograph that is not a plain file, and for a huge member.

    Other members are never unpacked.
    """
    if is_photograph and (not member.isreg() or member.sparse is not None):
        raise DataError(
            f"{archive}: member {member.name} is a link, device or sparse file; photographs must be"
            " plain files"
        )
    if member.size > LARGEST_BYTES:
        raise DataError(
            f"{archive}: member {member.name} states {member.size} bytes; photographs have at most"
            f" {LARGEST_BYTES}"
        )

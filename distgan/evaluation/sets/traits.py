"""Traits of the files of a set, beside their pixels, and differences of two sets in them."""

from collections import Counter
from dataclasses import dataclass, field

DIFFER = 0.05  # shares of a set that differ by less are no difference of the sets
_LOSSY = {"JPEG": "JPEG", "WEBP": "WebP"}  # all others hold what they were given


@dataclass
class Traits:
    """Counts of the images of a set by size, compression, colour and transparency.

    A count is empty where it has no meaning, such as the compression of a generator's samples.
    """

    sizes: Counter[str] = field(default_factory=Counter)
    compression: Counter[str] = field(default_factory=Counter)
    colour: Counter[str] = field(default_factory=Counter)
    transparency: Counter[str] = field(default_factory=Counter)
    colour_space: Counter[str] = field(default_factory=Counter)

    def count(
        self,
        size: tuple[int, int],
        format: str,
        is_gray: bool,
        has_alpha: bool,
        n: int = 1,
        space: str = "",
    ) -> None:
        """Add `n` images of one width and height, of one format of Pillow, "" for none, and of the
        colour space that they state, "" for sRGB.
        """
        self.colour_space[space or "sRGB"] += n
        self.sizes[f"{size[0]}x{size[1]}"] += n
        if format:
            self.compression[_LOSSY.get(format, "lossless")] += n
        self.colour["gray" if is_gray else "colour"] += n
        self.transparency["an alpha channel" if has_alpha else "no alpha channel"] += n


_EFFECTS = {
    "sizes": "resized images are smoother or sharper than others, and scores see that",
    "compression": (
        "JPEG and WebP change images in a way that scores see; compare files of one format"
    ),
    "colour": "gray images count as colour images with three equal channels",
    "transparency": "transparent parts are put on black, as in shards",
    "colour_space": "values are used as they are, whatever colour space a file states",
}


def differences(real: Traits, fake: Traits) -> list[str]:
    """Return a sentence on each trait whose shares differ between the two sets."""
    notes = []
    for name, effect in _EFFECTS.items():
        counts: tuple[Counter[str], Counter[str]] = getattr(real, name), getattr(fake, name)
        if all(counts) and _distance(*counts) > DIFFER:
            differ = "differ" if name == "sizes" else "differs"
            notes.append(
                f"{name.replace('_', ' ')} {differ}: real {_words(counts[0])}, fake"
                f" {_words(counts[1])}; {effect}"
            )
    return notes


def _distance(a: Counter[str], b: Counter[str]) -> float:
    """Return the largest difference of the shares of one word."""
    return max(abs(a[word] / a.total() - b[word] / b.total()) for word in a.keys() | b.keys())


def _words(counts: Counter[str]) -> str:
    words = [f"{n} of {word}" for word, n in counts.most_common(3)]
    rest = counts.total() - sum(n for _, n in counts.most_common(3))
    return ", ".join(words) + (f", {rest} others" if rest else "")

"""The checks of an audit: thresholds, units, meaning, and the source of every threshold."""

from dataclasses import dataclass

FAIL, WARN = "FAIL", "WARN"


@dataclass(frozen=True)
class Check:
    """A value above `warn` or `fail` (with `low`, below) is a finding.

    A threshold of None: never; 0: any value.
    """

    name: str
    # the unit of counting: "files", "members" (integrity), "images", "image pairs" (beside
    # "images"), "vectors", "columns", "pairs", "labels", "classes"
    of: str
    warn: float | None
    fail: float | None
    unit: str
    meaning: str
    source: str = ""
    low: bool = False

    @property
    def measured(self) -> bool:
        """True if every sample has a value, not only those with a finding."""
        return self.of in ("images", "pairs") and self.unit not in ("", "r")

    def level(self, value: float) -> str | None:
        """Return FAIL, WARN or None; NaN is no finding here (the check `not-finite` is)."""
        for level, threshold in ((FAIL, self.fail), (WARN, self.warn)):
            if threshold is not None and (value < threshold if self.low else value > threshold):
                return level
        return None

    def threshold(self, level: str | None) -> float | None:
        return self.fail if level == FAIL else self.warn


_RESIDUAL = "0.5 sample limits SI-SDR to 13 dB at 16 kHz, 2 samples to below 0 dB (measured)"
CHECKS = (
    Check(
        "dataset",
        "files",
        None,
        0,
        "",
        "dataset.json is missing, unfinished, or of other splits",
    ),
    Check("manifest", "files", None, 0, "", "manifest.json is missing or damaged"),
    Check("shard", "files", None, 0, "", "a shard is missing, cannot be read, or has another size"),
    Check("sha256", "files", None, 0, "", "the bytes of a shard changed since it was written"),
    Check(
        "index",
        "files",
        None,
        0,
        "",
        "the index of a shard is missing, damaged, stale, or contradicts the manifest",
    ),
    Check("sums", "files", None, 0, "", "SHA256SUMS is missing or contradicts manifest.json"),
    Check("crc32", "members", None, 0, "", "the bytes of a member changed since it was written"),
    Check(
        "header",
        "members",
        None,
        0,
        "",
        "the tar header of a member is damaged or contradicts the index",
    ),
    Check(
        "group-leak",
        "members",
        None,
        0,
        "",
        "a group (recording, picture) has samples in both splits",
    ),
    Check("key-repeated", "members", 0, None, "", "a key occurs in both splits"),
    Check("left-over", "files", 0, None, "", "a temporary file of a killed writer"),
    Check("stray", "files", 0, None, "", "a file that is not part of the data"),
    Check(
        "unseen",
        "files",
        0,
        None,
        "",
        "dataset.json does not describe a sample, or images have several sizes: samples were not"
        " examined",
    ),
    Check("label", "labels", None, 0, "", "a label is missing, or of no class of dataset.json"),
    Check(
        "contradiction",
        "labels",
        0,
        None,
        "",
        "the same pixels or values as a sample of another class",
    ),
    Check(
        "class-few",
        "classes",
        2,
        None,
        "samples",
        "training samples of a class",
        low=True,
    ),
    Check(
        "imbalance",
        "classes",
        10,
        None,
        "times",
        "training samples of the largest class against those of a class",
    ),
    Check("undecodable", "images", None, 0, "", "not an image, or a damaged one"),
    Check("size", "images", None, 0, "", "another size than dataset.json states"),
    Check(
        "mode",
        "images",
        0,
        None,
        "",
        "not gray or RGB as dataset.json states; converted at each reading",
    ),
    Check(
        "contrast",
        "images",
        5,
        2,
        "levels",
        "blank: standard deviation of the pixels, of 255 levels",
        "2: as `distgan shard images`",
        low=True,
    ),
    Check(
        "range",
        "images",
        32,
        None,
        "levels",
        "brightest minus darkest pixel, of 255 levels",
        low=True,
    ),
    Check(
        "saturated",
        "images",
        0.5,
        0.95,
        "share",
        "share of pixels at level 254 or 255",
        "0.95: as `distgan shard images`",
    ),
    Check("duplicate", "images", 0, None, "", "the same pixels as another image of the split"),
    Check(
        "duplicate-leak", "images", None, 0, "", "the same pixels as an image of the other split"
    ),
    Check(
        "near-duplicate",
        "images",
        0.95,
        None,
        "r",
        "correlation with another image of the split; "
        "candidates have 64-bit DCT hashes within 8 bits",
        "JPEG 30, brightness, rescaling, light noise: r > 0.95; one pair of 40,000 distinct"
        " particle images: 0.956",
    ),
    Check("near-leak", "images", 0.95, 0.98, "r", "the same, with an image of the other split"),
    Check("identical", "image pairs", None, 0, "", "input and target have the same pixels"),
    Check("undecodable", "vectors", None, 0, "", "not float32 of the stated length, or damaged"),
    Check("not-finite", "vectors", None, 0, "", "NaN or infinity"),
    Check("duplicate", "vectors", 0, None, "", "the same values as another vector of the split"),
    Check(
        "duplicate-leak", "vectors", None, 0, "", "the same values as a vector of the other split"
    ),
    Check("constant", "columns", 0, None, "", "a column that is the same in all vectors"),
    Check(
        "scale",
        "columns",
        10,
        None,
        "x",
        "standard deviation of a column, in those of the column with the least",
        "networks learn the wide columns first, and the narrow ones hardly",
    ),
    Check("undecodable", "pairs", None, 0, "", "not sound, or damaged"),
    Check(
        "format",
        "pairs",
        None,
        0,
        "",
        "rate, channels, type or length differ from dataset.json",
    ),
    Check("not-finite", "pairs", None, 0, "values", "NaN or infinity"),
    Check(
        "length",
        "pairs",
        0,
        0.01,
        "s",
        "difference between the lengths of input and target",
        "half a frame of 20 ms; lhotse tolerates 0.5 s",
    ),
    Check("identical", "pairs", None, 0, "", "input and target are the same"),
    Check(
        "silent",
        "pairs",
        None,
        -60,
        "dBFS",
        "peak of the more silent side",
        "zeros test of the DNS-Challenge",
        low=True,
    ),
    Check(
        "active",
        "pairs",
        0.2,
        0.05,
        "share",
        "target: frames of 20 ms above -40 dB of their 95th percentile",
        "URGENT 2024: 0.2",
        low=True,
    ),
    Check("dc", "pairs", 0.01, None, "of 1", "mean, of full scale; the worse side"),
    Check(
        "clipped",
        "pairs",
        1e-4,
        5e-3,
        "share",
        "values in runs of 3 and more at 0.99 of a peak above 0.9; the worse side",
        "runs of 3: the DNS-Challenge's clip test",
    ),
    Check(
        "level",
        "pairs",
        6,
        20,
        "dB",
        "level of the input against the target, over active frames, either sign",
        "gains of DeepFilterNet's own data: -6…6 dB",
    ),
    Check(
        "correlation",
        "pairs",
        None,
        0.3,
        "|rho|",
        "below: not the same utterance",
        "mismatched pairs: 0.02…0.12, matched: 0.57 and more (measured)",
        low=True,
    ),
    Check(
        "correlation-room",
        "pairs",
        0.3,
        0.15,
        "|rho|",
        "the same where KEY.json names a room (rir)",
        "a fifth of matched pairs in heavy reverberation: below 0.3 (measured)",
        low=True,
    ),
    Check(
        "doubt",
        "pairs",
        0,
        None,
        "",
        "the source recorded a doubt about the pair in KEY.json",
    ),
    Check(
        "delay",
        "pairs",
        0.5,
        2,
        "samples",
        "remaining delay between input and target, either sign",
        _RESIDUAL,
    ),
    Check(
        "drift",
        "pairs",
        1,
        None,
        "samples",
        "delay of the last third minus that of the first, either sign",
        _RESIDUAL,
    ),
    Check("polarity", "pairs", None, 0, "", "the input is inverted"),
    Check(
        "si-sdr-low",
        "pairs",
        -10,
        None,
        "dB",
        "SI-SDR of the input: little of the target is left",
        low=True,
    ),
    Check("si-sdr-high", "pairs", 40, None, "dB", "SI-SDR of the input: nothing to learn"),
    Check(
        "snr-declared",
        "pairs",
        0.01,
        None,
        "dB",
        "distance of the declared snr_db from the range that dataset.json declares",
    ),
    Check(
        "denoiser",
        "pairs",
        3,
        10,
        "dB",
        "SI-SDR of the input below the declared SNR (at most 15 dB), by so much: damage (not with"
        " reverberation)",
    ),
    Check(
        "bandwidth",
        "pairs",
        0.6,
        None,
        "of Nyquist",
        "target: highest frequency above -80 dB of its spectrum's peak",
        "twice upsampled speech: 0.53, genuine: 0.61 and more (measured); URGENT 2024 takes -50 dB",
        low=True,
    ),
    Check(
        "duplicate", "pairs", 0, None, "", "the same input and target as another pair of the split"
    ),
    Check("duplicate-leak", "pairs", None, 0, "", "the same target as a pair of the other split"),
)
# Not applied to waveforms that are not sound: a detector's pulse is shaped on purpose, so its
# levels, mean, edges and delay differ between input and target.
SOUND_ONLY = (
    "silent",
    "active",
    "dc",
    "clipped",
    "level",
    "correlation",
    "correlation-room",
    "delay",
    "drift",
    "polarity",
    "si-sdr-low",
    "si-sdr-high",
    "denoiser",
    "bandwidth",
)

SIGNED = ("length", "dc", "level", "delay", "drift")  # graded by their magnitude

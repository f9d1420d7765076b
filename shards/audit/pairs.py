"""Measure pairs of signals (an input to repair and its target), and find duplicates.

Delay, polarity, drift and correlation are those of distgan.shards.audio.align. Thresholds for sound
are not applied to other waveforms, such as the pulses of a detector: their input is shaped, shifted
and offset on purpose, so these values are reported and not graded.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.signal import welch

from distgan.core.errors import DataError
from distgan.core.reading import parse_json
from distgan.shards.audio import align
from distgan.shards.audio.pairs import clipped_share
from distgan.shards.audit.checks import SIGNED, SOUND_ONLY
from distgan.shards.audit.findings import Checks, Finding
from distgan.shards.audit.shard_integrity import Place, read
from distgan.shards.codecs.audio import SOUND_RATES, WAVE_FIELDS, read_flac, read_wav, to_float
from distgan.shards.format.manifest import DATASET

MAX_DELAY_S = 0.05  # in either direction
FRAME_S = 0.02
ACTIVE_DB = -40.0  # of the 95th percentile of the frames
# of the largest value of the spectrum: speech of 1 s without an s reaches 0.61 of the band there,
# and only 0.25 at -50
EDGE_DB = -80.0
CLEAN_SNR_DB = 15.0  # above it, any denoiser changes more than the noise it removes
_LOWEST = 1e-10


@dataclass(frozen=True)
class PairReport:
    """The measured values of one pair by name of the check, as far as they can be measured."""

    place: Place
    errors: dict[str, str]  # check -> detail
    values: dict[str, float]
    input_digest: bytes = b""
    target_digest: bytes = b""


class Examiner:
    """Examine chunks of samples; pickled to worker processes."""

    def __init__(self, dataset: dict[str, Any], fields: list[str]):
        self.sample: dict[str, Any] = dataset.get("sample", {})
        names = self.sample.get("fields") or [
            field for field in fields if field.rpartition(".")[2] in WAVE_FIELDS
        ]
        if len(names) != 2 or not set(names) <= set(fields):
            raise DataError(
                f"{DATASET} names {names} as input and target; the samples have the fields {fields}"
            )
        self.input, self.target = names
        self.snr_range = declared_range(dataset)

    def __call__(self, chunk: list[Place]) -> list[PairReport]:
        return [self._inspect(place, read(place)) for place in chunk]

    def waves(self, place: Place) -> tuple[np.ndarray, np.ndarray, int]:
        """Return (input, target, rate): float32 [frames] of the first channel, rate in Hz.

        Raises any exception of the decoders.
        """
        sample = read(place)
        observed, rate = _decode(sample[self.input], self.input)
        reference, _ = _decode(sample[self.target], self.target)
        return to_float(observed)[:, 0], to_float(reference)[:, 0], rate

    def _inspect(self, place: Place, sample: dict[str, bytes]) -> PairReport:
        try:
            observed, rate = _decode(sample[self.input], self.input)
            reference, target_rate = _decode(sample[self.target], self.target)
        except Exception as error:
            return PairReport(place, {"undecodable": f"{error} ({type(error).__name__})"}, {})
        errors: dict[str, str] = {}
        if wrong := self._format(observed, rate, reference, target_rate):
            errors["format"] = "; ".join(wrong)
        record = _parse_record(sample.get("json", b"{}"))
        digests = [hashlib.sha256(side.data).digest()[:16] for side in (observed, reference)]
        values = measure(to_float(observed)[:, 0], to_float(reference)[:, 0], rate)
        if record.get("rir") and "correlation" in values:
            values["correlation-room"] = values.pop("correlation")
        if record.get("doubt"):
            errors["doubt"] = str(record["doubt"])
        snr = record.get("snr_db")
        if isinstance(snr, int | float):
            values["snr"] = float(snr)
            if self.snr_range:
                values["snr-declared"] = max(self.snr_range[0] - snr, snr - self.snr_range[1], 0.0)
            if record.get("denoiser") and record.get("rir") is None and "si-sdr" in values:
                values["denoiser"] = min(snr, CLEAN_SNR_DB) - values["si-sdr"]
        return PairReport(place, errors, values, *digests)

    def _format(
        self, observed: np.ndarray, rate: int, reference: np.ndarray, target_rate: int
    ) -> list[str]:
        """Describe every difference between both sides and dataset.json."""
        wrong = []
        spec = self.sample
        for side, samples, hz in (("input", observed, rate), ("target", reference, target_rate)):
            dtype = samples.dtype.newbyteorder("=").name
            for name, actual, expected in (
                ("rate", hz, spec.get("rate", rate)),
                ("dtype", dtype, spec.get("dtype")),
                ("channels", samples.shape[1], 1),
            ):
                if expected is not None and actual != expected:
                    wrong.append(f"{side}: {name} {actual}, expected {expected}")
            if not spec.get("length", 0) <= len(samples) <= spec.get("longest", len(samples)):
                wrong.append(
                    f"{side}: {len(samples)} frames, expected {spec['length']}..{spec['longest']}"
                )
        return wrong


def _decode(data: bytes, field: str) -> tuple[np.ndarray, int]:
    """Return ([frames, channels], rate in Hz); ValueError if there are no frames."""
    samples, rate = (read_flac if field.endswith("flac") else read_wav)(data)
    if not len(samples):
        raise ValueError("has no frames")
    return samples, rate


def _parse_record(data: bytes) -> dict[str, Any]:
    """Parse KEY.json; {} if it is not a JSON object."""
    try:
        record = parse_json(data)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def declared_range(dataset: dict[str, Any]) -> tuple[float, float] | None:
    """Return (lowest, highest) SNR in dB as declared in dataset.json."""
    declared = dataset.get("options", {}).get("snr")
    if (
        isinstance(declared, list)
        and len(declared) == 2
        and all(isinstance(value, int | float) for value in declared)
    ):
        return declared[0], declared[1]
    return None


def measure(observed: np.ndarray, reference: np.ndarray, rate: int) -> dict[str, float]:
    """Return the values of one pair, float32 [n] and [m], by name of the check.

    If any sample is not finite, only the number of those and the difference in length.
    """
    bad = int((~np.isfinite(observed)).sum() + (~np.isfinite(reference)).sum())
    values = {"not-finite": float(bad), "length": (len(observed) - len(reference)) / rate}
    if bad:
        return values
    common = min(len(observed), len(reference))
    x, t = observed[:common].astype(np.float64), reference[:common].astype(np.float64)
    values["identical"] = float(np.array_equal(x, t))
    values["silent"] = min(_db(np.abs(side).max()) for side in (x, t))
    values["dc"] = max((side.mean() for side in (x, t)), key=abs)
    values["clipped"] = max(clipped_share(x), clipped_share(t))
    if not (x.any() and t.any()):
        return values
    active = _active(t, max(int(FRAME_S * rate), 1))
    values["active"] = float(active.mean())
    level = np.repeat(active, max(int(FRAME_S * rate), 1))
    n = min(len(level), common)
    values["level"] = _db(_rms(x[:n][level[:n]])) - _db(_rms(t[:n][level[:n]]))
    values["bandwidth"] = bandwidth(t)
    values["si-sdr"] = si_sdr(x, t)
    delay = align.estimate(t, x, min(int(MAX_DELAY_S * rate), common // 4))
    values["correlation"] = delay.correlation
    if delay.correlation >= align.MISMATCH:  # otherwise the delay is meaningless
        values["delay"], values["drift"] = delay.samples, delay.drift
        values["polarity"] = float(delay.polarity < 0)
    return values


def si_sdr(x: np.ndarray, target: np.ndarray) -> float:
    """Return the scale-invariant signal-to-distortion ratio in dB (Le Roux et al. 2019).

    Clipped to ±100. As metrics.audio.si_sdr, in NumPy: the audit imports no torch.
    """
    # Sums, not dot products: those start threads, which wait for those of the other processes.
    scaled = (x * target).sum() / (target**2).sum() * target
    signal, distortion = (scaled**2).sum(), ((x - scaled) ** 2).sum()
    return float(np.clip(10 * np.log10(max(signal, 1e-30) / max(distortion, 1e-30)), -100, 100))


def bandwidth(x: np.ndarray) -> float:
    """Return the highest frequency above -80 dB of the largest power, as a share of Nyquist."""
    _, power = welch(x, nperseg=min(1024, len(x)), detrend=False)
    above = np.flatnonzero(power > 10 ** (EDGE_DB / 10) * power.max())
    return float(above[-1] / (len(power) - 1)) if len(above) else 0.0


def _active(x: np.ndarray, frame: int) -> np.ndarray:
    """Return bool [frames]: frames louder than -40 dB of the 95th percentile.

    A signal shorter than a frame is one frame.
    """
    frames = x[: len(x) // frame * frame].reshape(-1, frame) if len(x) >= frame else x[None]
    power = (frames**2).mean(1)
    return power > 10 ** (ACTIVE_DB / 10) * np.percentile(power, 95)


def _rms(x: np.ndarray) -> float:
    return float(np.sqrt((x**2).mean())) if len(x) else 0.0


def _db(amplitude: float) -> float:
    return float(20 * np.log10(max(amplitude, _LOWEST)))


def not_graded(dataset: dict[str, Any]) -> tuple[str, ...]:
    """Return the names of the checks whose values are only reported for this data."""
    rate = dataset.get("sample", {}).get("rate", SOUND_RATES[0])
    sound = dataset.get("source") != "waveform" and SOUND_RATES[0] <= rate <= SOUND_RATES[1]
    return () if sound else SOUND_ONLY


def findings(reports: list[PairReport], checks: Checks, ungraded: tuple[str, ...]) -> list[Finding]:
    """Return all findings about these pairs."""
    result: list[Finding] = []
    for report in reports:
        for name, detail in report.errors.items():
            checks.judge(result, "pairs", name, report.place, 1.0, detail)
        for check in checks.of("pairs"):
            value = report.values.get("si-sdr" if check.name.startswith("si-sdr") else check.name)
            if value is None or check.name in ungraded:
                continue
            if check.name in SIGNED:
                checks.judge(
                    result,
                    "pairs",
                    check.name,
                    report.place,
                    abs(value),
                    f"{value:+.4g} {check.unit}",
                )
            else:
                checks.judge(result, "pairs", check.name, report.place, value, "")
    _copies(reports, checks, result)
    return result


def _copies(reports: list[PairReport], checks: Checks, result: list[Finding]) -> None:
    """Report targets that are in both splits, and pairs that are in one split twice.

    One target with several inputs is no finding.
    """
    pairs: dict[tuple[str, bytes, bytes], PairReport] = {}
    first_split = reports[0].place.split if reports else ""
    targets = {
        report.target_digest: report
        for report in reports
        if report.place.split == first_split and report.target_digest
    }
    for report in reports:
        if not report.target_digest:
            continue
        other = pairs.setdefault(
            (report.place.split, report.input_digest, report.target_digest), report
        )
        if other is not report:
            checks.judge(
                result,
                "pairs",
                "duplicate",
                report.place,
                1.0,
                f"the input and target of {other.place}",
                other.place,
            )
        if report.place.split != first_split and report.target_digest in targets:
            source = targets[report.target_digest].place
            checks.judge(
                result,
                "pairs",
                "duplicate-leak",
                report.place,
                1.0,
                f"the target of {source}",
                source,
            )

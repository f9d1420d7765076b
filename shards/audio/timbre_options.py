"""The command line options of the source `timbre`, and the check of their values."""

from pathlib import Path

from distgan.core.arguments import Arguments, Option, number, one_of, whole
from distgan.shards.audio import corpus, denoise, speech

RATES = (16000, 48000)
FOLDERS = {"speech": "clean speech", "noise": "noise", "rirs": "impulse responses"}
SNR_DB = (-60.0, 100.0)


OPTIONS = (
    *(
        Option(name, f"{meaning}, sound files at any depth (default: synthetic)", "FOLDER")
        for name, meaning in FOLDERS.items()
    ),
    whole(
        "n",
        "pairs, training and validation together (default: each segment of --speech once; 400"
        " without)",
        2,
    ),
    whole("seed", "another seed draws other noise, rooms and strengths", 0, default=0),
    one_of(
        "voice",
        "of synthetic speech (default: auto, espeak-ng where installed)",
        "auto",
        "espeak",
        "formant",
    ),
    one_of(
        "rate",
        "of the pairs",
        *map(str, RATES),
        kind=int,
        metavar="HZ",
        default=RATES[0],
    ),
    number(
        "save-segment-length", "length of a stored pair", 0.1, 600, metavar="SECONDS", default=4.0
    ),
    number(
        "segment-length",
        "length that training crops from it at random",
        0.1,
        60,
        metavar="SECONDS",
        default=1.0,
    ),
    number(
        "snr",
        "speech to noise in dB, drawn uniformly",
        *SNR_DB,
        count=2,
        metavar="LOW HIGH",
        default=[-5.0, 20.0],
    ),
    number("reverb", "share of the samples that are in a room", 0, 1, metavar="SHARE", default=0.5),
    one_of(
        "denoiser",
        "what the pairs are denoised with (default: deepfilternet, the published DeepFilterNet3,"
        " where its package is installed, else erb; a set that was begun keeps its own)",
        *denoise.NAMES,
    ),
    Option(
        "weights", "others for deepfilternet than the published ones: a zip, or a folder", "PATH"
    ),
    number("max-delay", "largest delay of the denoiser", 0, 30, metavar="SECONDS", default=0.1),
)


def option_errors(args: Arguments, folders: dict[str, Path], voice: str | None) -> list:
    """Return a message for every value that is not allowed."""
    saved, segment, (low, high) = args.save_segment_length, args.segment_length, args.snr
    least = 2 if "speech" in folders else corpus.TAKES + 1
    checks = (
        (
            args.n is None or args.n >= least,
            f"--n {args.n}: at least {least} pairs, of two recordings: one to train on, one to"
            " validate",
        ),
        (
            saved >= segment,
            f"--save-segment-length {saved:g} is shorter than --segment-length {segment:g}, which"
            " is cut out of it",
        ),
        (
            0 < args.max_delay < segment / 2,
            f"--max-delay {args.max_delay:g}: more than 0, less than half of --segment-length"
            f" {segment:g}",
        ),
        (low <= high, f"--snr {low:g} {high:g}: the lower first"),
        (args.reverb > 0 or "rirs" not in folders, "--rirs has no effect with --reverb 0"),
        (
            args.voice is None or voice is not None,
            "--voice is for synthetic speech and babble, not with --speech and --noise",
        ),
        (
            voice != "espeak" or speech.espeak_path(),
            "--voice espeak: espeak-ng is not installed; --voice formant needs no program",
        ),
    )
    return [message for allowed, message in checks if not allowed]

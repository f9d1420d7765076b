"""The command line options of the source `timbre`, and the check of their values."""

import argparse
from pathlib import Path

from distgan.shards.audio import corpus, denoise, speech

RATES = (16000, 48000)
FOLDERS = {"speech": "clean speech", "noise": "noise", "rirs": "impulse responses"}
SNR_DB = (-60.0, 100.0)


def add_options(parser: argparse.ArgumentParser) -> None:
    for name, content in FOLDERS.items():
        parser.add_argument(
            f"--{name}",
            metavar="FOLDER",
            help=f"{content}, sound files at any depth (default: synthetic)",
        )
    parser.add_argument(
        "--n",
        type=int,
        help="pairs, training and validation together (default: each segment of --speech once; 400"
        " without)",
    )
    parser.add_argument(
        "--voice",
        choices=("auto", "espeak", "formant"),
        help="of synthetic speech (default: auto, espeak-ng if installed)",
    )
    parser.add_argument(
        "--rate",
        type=int,
        choices=RATES,
        default=RATES[0],
        metavar="HZ",
        help="16000 or 48000 (default: %(default)s)",
    )
    parser.add_argument(
        "--snr",
        type=float,
        nargs=2,
        default=[-5.0, 20.0],
        metavar=("LOW", "HIGH"),
        help="speech to noise in dB, drawn uniformly (default: -5 20)",
    )
    parser.add_argument(
        "--denoiser", choices=denoise.NAMES, default=denoise.DEFAULT, help="default: %(default)s"
    )
    parser.add_argument(
        "--weights", metavar="PATH", help="of deepfilternet: the published zip, or its folder"
    )
    for name, default, metavar, text in (
        ("save-segment-length", 4.0, "SECONDS", "length of a stored pair"),
        ("segment-length", 1.0, "SECONDS", "length that training crops from it at random"),
        ("reverb", 0.5, "SHARE", "share of the samples that are in a room"),
        ("max-delay", 0.1, "SECONDS", "largest delay of the denoiser"),
        ("seed", 0, None, "another seed draws other noise, rooms and strengths"),
    ):
        parser.add_argument(
            f"--{name}",
            type=type(default),
            default=default,
            metavar=metavar,
            help=f"{text} (default: %(default)s)",
        )


def option_errors(args: argparse.Namespace, folders: dict[str, Path], voice: str | None) -> list:
    """Return a message for every value that is not allowed."""
    saved, segment, (low, high) = args.save_segment_length, args.segment_length, args.snr
    least = 2 if "speech" in folders else corpus.TAKES + 1
    checks = (
        (
            args.n is None or args.n >= least,
            f"--n {args.n}: at least {least} pairs, of two recordings: one to train on, one to"
            " validate",
        ),
        (args.seed >= 0, f"--seed {args.seed}: 0 or more"),
        (args.rate in RATES, f"--rate {args.rate}: {RATES[0]} or {RATES[1]}"),
        (0.1 <= segment <= 60, f"--segment-length {segment:g}: from 0.1 to 60 seconds"),
        (saved <= 600, f"--save-segment-length {saved:g}: at most 600 seconds"),
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
        (
            SNR_DB[0] <= low <= high <= SNR_DB[1],
            f"--snr {low:g} {high:g}: the lower first, from {SNR_DB[0]:g} to {SNR_DB[1]:g} dB",
        ),
        (0 <= args.reverb <= 1, f"--reverb {args.reverb:g}: from 0 to 1"),
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

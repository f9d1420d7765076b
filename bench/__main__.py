"""Run every benchmark, or those named.

Python -m bench [reading] [writing] [shuffling] [overhead] … [--quick] [--only PATTERN]
"""

import argparse
import importlib

QUICK = (
    "reading",
    "writing",
    "shuffling",
    "overhead",
    "options",
    "scaling",
    "saving",
    "frechet",
    "comparing",
    "extraction",
    "sweeping",
    "dividing",
)  # understand --quick and --only
NAMES = (*QUICK, "equality", "alignment", "denoising")


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m bench",
        description="Speed, as ratios against named peers or limits, measured in one run.",
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"one of {', '.join(NAMES)}; default: all"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"a few samples, to see that {', '.join(QUICK)} work; the figures mean nothing",
    )
    parser.add_argument(
        "--only",
        default="",
        metavar="PATTERN",
        help=(
            "of these, the rows, systems or options whose name matches, as in 'limit|CRC';"
            " shuffling has one"
        ),
    )
    args = parser.parse_args()
    if unknown := set(args.names) - set(NAMES):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are: {', '.join(NAMES)}")
    for name in args.names or (QUICK if args.quick else NAMES):
        module = importlib.import_module(f"bench.{name}")
        print(f"\n== {name}: {module.__doc__.splitlines()[0]}", flush=True)
        options = {"quick": args.quick, "only": args.only} if name in QUICK else {}
        module.main(**options)


if __name__ == "__main__":
    main()

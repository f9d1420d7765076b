"""Run every benchmark, or those named: python -m bench [reading] [overhead] [equality] [alignment] [denoising]"""

import importlib
import sys

NAMES = ("reading", "overhead", "equality", "alignment", "denoising")

if __name__ == "__main__":
    asked = sys.argv[1:] or NAMES
    if unknown := set(asked) - set(NAMES):
        sys.exit(f"no benchmark {', '.join(sorted(unknown))}; there are: {', '.join(NAMES)}")
    for name in asked:
        print(f"\n== {name}: {importlib.import_module(f'bench.{name}').__doc__.splitlines()[0]}", flush=True)
        importlib.import_module(f"bench.{name}").main()

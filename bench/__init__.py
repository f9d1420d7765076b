"""Speed as ratios against named peers or limits, measured in one run: `make bench`."""

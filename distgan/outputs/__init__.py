"""Files that a trained network leaves for people: images, sounds, plots, tables, data sets.

Every file is written whole or not at all, and does not depend on the number of ranks. May import
core, config, runs, distributed, data, metrics, engine, evaluation and shards.

folder         the folder of `distgan generate`: begun, verified, continued, finished
image_results  generated images as PNG or JPEG files, with their table and their score
audio_results  repaired sounds as WAV files and spectrograms, with their measures
image_grid     sample grids
signal_plots   waveforms and spectrograms
"""

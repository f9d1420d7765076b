"""Verbs that look at trained runs: score, generate, report; and two that write text.

Help and the check of a line import no torch. May import everything but training and launchers.

evaluate          `distgan evaluate`: parse, choose, run, store, print
_evaluate_images  the scores of images, of a run or of folders
_evaluate_audio   the measures of sound, of a run or of folders
generate          `distgan generate`: images or repaired sounds of a checkpoint
_drawn_images     which images `generate` draws: options, checked before processes start
_repairs          sounds and images as a generator that repairs is given them
report            `distgan report`: a table of runs and a page for each
new               `distgan new`: the file of a GAN of one's own
trained_run       the checkpoint, the settings and the networks of a run
completion        `distgan completion`: scripts for shells
"""

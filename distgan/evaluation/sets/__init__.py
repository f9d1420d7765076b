"""Sets of images or vectors to compare, by number, and the statistics that are kept of them. May
import what distgan.evaluation may.

image_set          what a set is
traits             sizes, compression and colour of the files, and how two sets differ
resizing           images resized as shards of them are
opening            open what a user names
datasets           data sets of shards
folders            image files in a folder
arrays             vectors in an array of NumPy
statistics_files   statistics in a file, without the images
statistics_cache   files of statistics: computed once, verified when they are read
"""

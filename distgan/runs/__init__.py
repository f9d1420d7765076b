"""A run folder on disk: what a run writes, and what reads it.

Imports config, monitor, core; only checkpoints and locate load torch. No file is left half written:
a reader sees the old or the new one.

resolve         which run a command line means, and the path of its folder
folder          the folder of a run that trains: lock, status, events, journal, DONE
training_state  what a checkpoint holds beside networks and position
checkpoints     save, verify and load checkpoints
locate          `RUN@best`, `RUN@epoch=1000` and the like -> a checkpoint
class_source    the source of a recipe that is given as a class, also of a script or a notebook
recipe_code     the source of a recipe that is not distgan's: files, digest, copies
data_code       a Dataset that is named by code: `data=my_data.py:photos`
records         read status.json and other small files, checked
history         read a run folder for reports; change nothing
checkout        the git state of the running code
"""

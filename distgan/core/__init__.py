"""The ground of every other package: no training, no run, no torch at import.

Promises: a file is written whole or not at all; a random number is a function of its address; an
error that a user can act on is one message. Imports nothing of distgan but itself.

errors        the tree of errors that users can cause or meet; near misses of a name
console       lines, bars and tables for people
arguments     the command line of a verb as data: parsing, help, one error for all faults of a line
files         files written whole, appended, locked; CSV text; checksums
reading       files that others may have written: regular, bounded; JSON of a bounded depth
file_tree     files below a folder, their contents' hashes, keys made of their names
worker_pool   a function over many items in several processes, results in order
interrupts    signals that decoding processes leave to their rank
watchdog      the stacks of a process that makes no progress, and its end
rng           random numbers by address: (seed, purpose, index)
clock         samples seen, the one clock of a run
"""

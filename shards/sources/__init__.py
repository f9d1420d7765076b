"""One file for each kind of source; the file name is the name on the command line.

A source module has

    EXAMPLES            list of (description, command line) for --help
    RECIPE              the recipe to name as the next command; None while no recipe trains on it
    KIND                optional: the kind of its samples, where recipes of one's own train on them
    KEPT                optional: options that the machine or the version of the program decides
                        where they are not given; a data set that was begun keeps what it was begun
                        with
    VALIDATION          optional: the share of the samples for validation, if it is not 0.1
    OPTIONS             the command line options of this source
    check_options(args) optional: yield the errors of options that do not fit together
    Source(args)        open what those options name; ConfigError where it cannot

and a `Source`, which is pickled to the writer processes, has

    options: dict       everything that decides the bytes, in JSON types; a rerun must have the
                        same. Keys are names of options without the dashes
    origin: dict        recorded, but may change between reruns, such as the folder of the files
    keys: list[str]     one unique key per possible sample, in any order, as `make` returns them
    check(workers)      examine every sample before anything is written and return a
                        `SourceReport`, the same on every machine
    shared              optional, None: set before `check` where the tasks of an array examine the
                        samples together (_base.Shared)
    sample: dict        the format of a sample, complete after `check`; written to dataset.json
                        unchanged. One of
                        {"kind": "image", "channels": 1|3, "field": "png"|"jpg"|"npy",
                         "size": pixels of a side, or [height, width]}
                        {"kind": "image_pair", "channels": 1|3, "size": the same,
                         "fields": ["input.png", "target.png"]}, or .jpg, or .npy
                        {"kind": "vector", "size": numbers of each, "field": "npy",
                         "columns": their names, where they have some}
                        {"kind": "pair", "rate": Hz, "fields": ["input.wav", "target.wav"],
                         "dtype": "int16"|"float32", "length": shortest, "longest": frames}
    label_columns       optional: {column: entry} of `labels` in dataset.json (format.labels)
    label_of(i) -> dict optional, beside it: {column: value} of sample i
    group(i) -> str     samples of one group (one recording, one picture) stay on one side of the
                        train/validation split; call after `check`
    make(i) -> dict     sample i as {"__key__": str, field: bytes, ...}: a pure function, so any
                        number of writers gives the same bytes. All samples have the same fields
    make_batch(numbers: list[int]) -> list[dict]
                        optional, in place of `make`: samples that are cheaper to make together.
                        Always called with the same chunks, 16 neighbours of a shard (fewer at its
                        end), for any number of workers, kills and tasks. So the result may depend
                        on the other samples of the batch, but not on the number of threads, which
                        differs between a worker and a single process

Imports distgan.core, shards.codecs, shards.format and shards.audio.

_base             find a source by its name; the results of `check`, and how tasks share its work
images            a folder of images
image_pairs       pairs of images in two folders
particles         synthetic bubble-chamber photographs
shapes            synthetic labelled images of coloured shapes
flowers102        Oxford 102 Flowers from the published files
waveform          detector pulses, synthetic or from files
audio             pairs of recordings in two folders
timbre            speech before and after a denoiser
vectors           rows of a table: an array of NumPy, or CSV
gaussians         synthetic points of two coordinates, in several places
"""

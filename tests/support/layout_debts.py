"""What breaks the rules of tests/unit/test_layout.py today, by rule: only ever shortened."""

DEBTS: dict[str, set[str]] = {
    "imports": {
        "distgan.data.loader",
        "distgan.metrics.audio",
        "distgan.train",
    },
    "packages": {
        "distgan",
    },
    "torch": set(),
    "mock": {},
    "file": {},
    "function": {
        "distgan.launchers.capacity.plot.draw",
    },
    "packages' docs": {},
    "docstrings": {
        "distgan.metrics.frechet.Moments",
        "distgan.metrics.frechet.moments",
        "distgan.recipes._noise",
        "distgan.recipes._noise.channels",
        "distgan.recipes.timbre._diffaugment",
        "distgan.recipes.waveform._discriminator_input",
        "distgan.recipes.waveform.repairer",
        "distgan.recipes.wgan_flowers.where",
        "distgan.runs.checkpoints._digest",
        "distgan.runs.checkpoints.held",
        "distgan.runs.history._inside",
        "distgan.runs.history._own",
        "distgan.runs.history.criteria",
        "distgan.runs.history.unit",
        "distgan.training.self_check.Difference",
        "distgan.training.self_check.Report",
        "distgan.training.self_check._Trace",
        "distgan.training.self_check._advice",
    },
}

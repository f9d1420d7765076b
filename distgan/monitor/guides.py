"""The tuning guides as data: by rule, the moves to make, in order. Imports no torch."""

from typing import Any

from distgan.monitor.moves import Move, Rule

Guide = dict[Rule, tuple[Move, ...]]


_STRONG = (Move(setting="g_steps", add=1, limit=3), Move(setting="d_lr", factor=0.5, limit=5e-5))
_WEAK = (
    Move(setting="g_steps", add=-1, limit=1),
    Move(setting="d_lr", factor=2, limit=2e-4),
    Move(setting="d_lr", factor=2, limit=8e-4),  # as in the best run of docs/sagan.md
)
_CLIP = Move(setting="clip", factor=0.5, limit=0.5, in_flight=False)
_SMALLER_D = (
    Move(setting="weight_decay", factor=5, limit=5e-5),
    Move(setting="ndf", factor=0.75, limit=32, in_flight=False),
)
# Zhao et al. 2020: it keeps D from knowing its training images by heart. Weight decay does not,
# where D is spectrally normalised: a factor on its weights changes nothing that it says.
DIFFAUGMENT = Move(setting="diffaugment", to=("color", "translation", "cutout"))
# Karras et al. 2020: the same, as much of it as D needs.
ADA = Move(setting="ada", to=True)
_ADAM = tuple(Move(setting=name, factor=0.5, limit=5e-5) for name in ("g_lr", "d_lr"))

# From the specifications of the sagan and capacity systems: one more G step up to 1:3; D 5e-5 and G
# 1e-4; learning rate 5e-5 and clip 0.5 if unstable.
DEFAULT_GUIDE: Guide = {
    "nonfinite": (
        *(Move(setting=name, factor=0.25, limit=5e-5) for name in ("g_lr", "d_lr")),
        _CLIP,
    ),
    "mode_collapse": (
        Move(setting="d_lr", factor=0.25, limit=5e-5),
        Move(setting="g_lr", factor=0.5, limit=1e-4),
    ),
    "d_loss_low": _STRONG,
    "d_too_strong": _STRONG,
    "gan_loss_stagnant": _STRONG,
    "gradients_exploding": (*_ADAM, _CLIP),
    "critic_drift": _ADAM,
    "g_loss_exploding": (*_ADAM, _CLIP),
    "d_loss_high": _WEAK,
    "real_prob_low": _WEAK,
    "fake_prob_high": _WEAK,
    "overfitting": _SMALLER_D,
    "validation_rising": _SMALLER_D,
    "d_overfitting": (DIFFAUGMENT, _SMALLER_D[1]),
    "copies": (DIFFAUGMENT, Move(setting="ngf", factor=0.75, limit=32, in_flight=False)),
    "score_flat": (
        Move(setting="epochs", factor=1.5, limit=3000, in_flight=False),
        Move(setting="lr_every", factor=0.5, limit=250, in_flight=False),
        Move(setting="ngf", factor=1.5, limit=96, in_flight=False),
        Move(setting="ndf", factor=1.5, limit=96, in_flight=False),
        Move(setting="attention", to=(8, 16, 32), in_flight=False),
    ),
}
# From the specification of capacity, where the score does not fall: another ratio of updates, and
# self-attention with more channels.
SAGAN_GUIDE: Guide = DEFAULT_GUIDE | {
    "d_overfitting": (ADA, _SMALLER_D[1]),
    "score_flat": (
        *DEFAULT_GUIDE["score_flat"],
        Move(setting="attention_reduction", to=4, in_flight=False),
        Move(setting="g_steps", add=1, limit=3, in_flight=False),
    ),
}


# R1 and R2 are what holds D back; there is one update of each network in a step.
_PENALTIES = (
    Move(setting="gamma", factor=2, limit=16),
    Move(setting="gamma_end", factor=2, limit=1.6),
)
R3GAN_GUIDE: Guide = DEFAULT_GUIDE | {
    "mode_collapse": (*DEFAULT_GUIDE["mode_collapse"], *_PENALTIES),
    "gradients_exploding": (*_ADAM, *_PENALTIES),
    "d_loss_low": (*_PENALTIES, _STRONG[1]),
    "d_overfitting": (ADA, *_PENALTIES, _SMALLER_D[1]),
    "score_flat": (
        Move(setting="epochs", factor=1.5, limit=3000, in_flight=False),
        Move(setting="anneal_epochs", factor=1.5, limit=1500, in_flight=False),
        Move(setting="ngf", factor=1.5, limit=96, in_flight=False),
        Move(setting="ndf", factor=1.5, limit=96, in_flight=False),
    ),
}

# What changed in these guides since 0.1.0, for runs that were begun before; null: no such rule.
EARLIER_MOVES: dict[str, list[dict[str, Any]] | None] = dict.fromkeys(
    f"watch.moves.{rule}" for rule in ("gradients_exploding", "critic_drift", "copies")
)
EARLIER_SAGAN_MOVES = {
    f"watch.moves.{rule}": [move.model_dump(mode="json") for move in moves]
    for rule, moves in {
        "d_overfitting": _SMALLER_D,
        **dict.fromkeys(("d_loss_high", "real_prob_low", "fake_prob_high"), _WEAK[:2]),
    }.items()
}
# Before adaptive augmentation took the place of a fixed one.
EARLIER_OVERFITTING = {
    "watch.moves.d_overfitting": [
        move.model_dump(mode="json") for move in (DIFFAUGMENT, _SMALLER_D[1])
    ]
}
# Before it named the ratio of updates and attention_reduction.
EARLIER_SCORE_FLAT = {
    "watch.moves.score_flat": [move.model_dump(mode="json") for move in DEFAULT_GUIDE["score_flat"]]
}
EARLIER_R3GAN_OVERFITTING = {
    "watch.moves.d_overfitting": [
        move.model_dump(mode="json") for move in (DIFFAUGMENT, *_PENALTIES, _SMALLER_D[1])
    ]
}
EARLIER_R3GAN_MOVES = EARLIER_SAGAN_MOVES | {
    f"watch.moves.{rule}": [move.model_dump(mode="json") for move in DEFAULT_GUIDE[rule]]
    for rule in ("mode_collapse", "d_loss_low", "score_flat")
}


# From the specification of the waveform system: the tuning guide with its three rows. It also leads
# from the settings of the run that failed (`waveform-collapsed`) to those of the repaired one. If a
# setting occurs twice, its next move is the first applicable one.
_COLLAPSE = (
    Move(setting="d_lr", factor=0.5, limit=1.25e-5),
    Move(setting="lambda_l1", factor=0.1, limit=10),
    Move(setting="lambda_l1", factor=0.5, limit=2.5),
    Move(setting="g_lr", factor=2, limit=2e-4),
    Move(setting="real_label", add=-0.1, limit=0.9),
    Move(setting="fake_label", add=0.1, limit=0.1),
    Move(setting="base_filters_d", factor=0.5, limit=32, in_flight=False),
    Move(setting="base_filters_d", factor=0.75, limit=16, in_flight=False),
    Move(setting="num_layers_d", add=-1, limit=2, in_flight=False),
)
_G_WEAK = (
    Move(setting="g_lr", factor=1.5, limit=3e-4),
    Move(setting="lambda_l1", factor=2, limit=20),
)
_OVERFIT = (
    Move(setting="dropout_rate", add=0.1, limit=0.4),
    Move(setting="weight_decay", factor=5, limit=5e-5),
    Move(setting="aug_noise_std", add=0.01, limit=0.03),
    Move(setting="aug_scale_range", to=(0.85, 1.15)),
    Move(setting="aug_shift_range", add=0.05, limit=0.15),
)
WAVEFORM_GUIDE: Guide = DEFAULT_GUIDE | {
    "d_loss_low": _COLLAPSE,
    "d_too_strong": _COLLAPSE,
    "gan_loss_stagnant": _COLLAPSE,
    "d_loss_high": _G_WEAK,
    "overfitting": _OVERFIT,
    "validation_rising": _OVERFIT,
    "real_prob_low": _G_WEAK,
    "fake_prob_high": _G_WEAK,
    "d_overfitting": _OVERFIT,
    "score_flat": (),
}

# Of the timbre system: G's GAN loss is one of three and small.
_LESS_GAN = (
    Move(setting="d_lr", factor=0.5, limit=2.5e-5),
    Move(setting="lambda_adversarial", factor=0.5, limit=0.0125),
)
_SLOWER = (
    Move(setting="g_lr", factor=0.5, limit=6.25e-5),
    Move(setting="d_lr", factor=0.5, limit=2.5e-5),
)
_MILDER = (
    Move(setting="weight_decay", add=1e-5, limit=5e-5),
    Move(setting="g_width", factor=0.5, limit=64, in_flight=False),
)
TIMBRE_GUIDE: Guide = {
    "nonfinite": _SLOWER,
    "mode_collapse": _SLOWER,
    "gradients_exploding": _SLOWER,
    "g_loss_exploding": _SLOWER,
    "d_loss_low": _LESS_GAN,
    "d_too_strong": _LESS_GAN,
    **dict.fromkeys(
        ("d_loss_high", "real_prob_low", "fake_prob_high"),
        (Move(setting="d_lr", factor=2, limit=8e-4),),
    ),
    "overfitting": _MILDER,
    "validation_rising": _MILDER,
}
EARLIER_TIMBRE_MOVES: dict[str, None] = dict.fromkeys(
    f"watch.moves.{rule}" for rule in ("mode_collapse", "real_prob_low", "fake_prob_high")
)


# From the specification of the wgan_flowers system.
_SLOWER_CRITIC = tuple(Move(setting=name, factor=0.5, limit=1.25e-5) for name in ("g_lr", "d_lr"))
_BETTER_CRITIC = (
    Move(setting="n_critic", add=2, limit=10, in_flight=False),
    Move(setting="penalty", to=10, in_flight=False),
    Move(setting="optimizer", to="adam", in_flight=False),
)
# Options of the flowers specification, as moves. An unbounded critic has no range to leave, so its
# other rules raise nothing.
FLOWERS_GUIDE: Guide = {
    "nonfinite": _SLOWER_CRITIC,
    "mode_collapse": (*_SLOWER_CRITIC, *_BETTER_CRITIC),
    "gradients_exploding": _SLOWER_CRITIC,
    "critic_drift": (*_SLOWER_CRITIC, *_BETTER_CRITIC),
    "copies": (DIFFAUGMENT, Move(setting="ngf", factor=0.75, limit=32, in_flight=False)),
    "d_overfitting": (
        Move(setting="rotation", add=15, limit=15),
        Move(setting="jitter", add=0.2, limit=0.2),
        Move(setting="translation", add=0.1, limit=0.1),
    ),
    "score_flat": (
        *_SLOWER_CRITIC,
        *_BETTER_CRITIC,
        Move(setting="lr_every", to=500, in_flight=False),
        Move(setting="attention", to=(16,), in_flight=False),
    ),
}
# As it was while 500 epochs were the default.
EARLIER_FLOWERS = {
    "epochs": 500,
    "sample_every": 10,
    "evaluate.schedule": [[200, 10], [800, 20], [None, 50]],
    "watch.score_flat_epochs": 100,
    "watch.moves.score_flat": [
        (move.model_copy(update={"to": 100}) if move.setting == "lr_every" else move).model_dump(
            mode="json"
        )
        for move in FLOWERS_GUIDE["score_flat"]
    ],
}

"""Invented journals: of the sagan system, and of the waveform system as its documents describe the
run that failed and the repaired one.
"""

import math
import random

HEALTHY = {
    "d/loss": 0.65,
    "d/real_prob": 0.66,
    "d/fake_prob": 0.32,
    "g/loss": 1.1,
    "g/fake_prob": 0.33,
    "valid/overfit": 0.1,
}
STEPS_PER_EPOCH = 18


def journal(
    lines=400,
    noise=0.15,
    epochs_per_line=1.0,
    score=lambda epoch: 200 / (1 + epoch / 60) + 20,
    **ramps,
):
    """An invented journal: HEALTHY values with noise; a ramp `key=lambda t: value` (t from 0 to 1)
    replaces a signal.
    """
    draw, rows = random.Random(0), []
    for i in range(lines):
        t, epoch = i / max(lines - 1, 1), i * epochs_per_line
        values = {
            key: (ramps[key](t) if key in ramps else value) * (1 + noise * draw.uniform(-1, 1))
            for key, value in HEALTHY.items()
        }
        overfit = values.pop("valid/overfit")
        step = int(epoch * STEPS_PER_EPOCH)
        rows.append(
            {"step": step, "samples": step * 16, "epoch": epoch, "seconds": i * 3.0, **values}
        )
        if i % 10 == 9:
            rows.append(
                {
                    "step": step,
                    "samples": step * 16,
                    "epoch": epoch,
                    "seconds": i * 3.0,
                    "valid/overfit": overfit,
                    "eval/frechet_standin": score(epoch),
                }
            )
    return rows


def late(value, normal, start=0.6):
    """A signal that leaves `normal` at `start` and reaches `value` at the end."""
    return lambda t: normal if t < start else normal + (value - normal) * min((t - start) / 0.1, 1)


def pairs(
    epochs,
    d_loss,
    gan_loss,
    train,
    valid,
    lines=20,
    noise=0.05,
    validate_every=1,
    more=lambda epoch: {},
):
    """A journal of the waveform system, `lines` to an epoch.

    The others are functions of the epoch.
    """
    draw, rows = random.Random(1), []
    for step in range(1, epochs * lines + 1):
        epoch = step / lines
        at = {"step": step, "samples": step * 8, "epoch": round(epoch, 6)}
        near = [1 + noise * draw.uniform(-1, 1) for _ in range(3)]
        rows.append(
            at
            | {
                "seconds": step * 0.1,
                "d/loss": d_loss(epoch) * near[0],
                "g/adversarial": gan_loss(epoch) * (1 + (near[1] - 1) / 10),
                "g/l1": train(epoch) * near[2],
                "g/loss": gan_loss(epoch) + 10 * train(epoch),
            }
            | more(epoch)
        )
        if step % (lines * validate_every) == 0:
            rows.append(at | {"valid/l1": valid(epoch)})
            rows.append(at | {"eval/l1": valid(epoch)})
    return rows


def collapsed(epochs=10):
    """D loss from 0.4 to 0 within 5 epochs, GAN loss flat at 0.98 to 1.0, training L1 falls,
    validation L1 wanders; 0.25 against 0.45 at epoch 5.
    """
    return pairs(
        epochs,
        lambda e: max(0.4 * (1 - e / 5), 0.004),
        lambda e: 0.99 + 0.004 * math.sin(2 * e),
        lambda e: 0.2 + 0.3 * math.exp(-0.35 * e),
        lambda e: 0.45 + 0.02 * e / 5 + 0.03 * math.sin(3 * e),
    )


def repaired(epochs=10, **more):
    """D loss 0.3 to 0.5, GAN loss 0.5 to 0.8 and moving, training L1 0.30 and validation L1 0.32 at
    epoch 5, falling together.
    """
    return pairs(
        epochs,
        lambda e: 0.4 + 0.08 * math.sin(e),
        lambda e: 0.65 + 0.12 * math.sin(1.3 * e),
        lambda e: 0.24 + 0.3 * math.exp(-0.32 * e),
        lambda e: 0.26 + 0.3 * math.exp(-0.32 * e),
        **more,
    )

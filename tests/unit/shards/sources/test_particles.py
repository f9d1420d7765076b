"""The physics of the synthetic bubble-chamber photographs, and that image i is a function of (seed,
i) alone.
"""

import io
import json
import math
from argparse import Namespace

import numpy as np
import pytest
from PIL import Image

from distgan.core.errors import ConfigError
from distgan.core.rng import numpy_generator
from distgan.shards.build.command import command_of
from distgan.shards.codecs import image as image_codec
from distgan.shards.sources import particles
from distgan.shards.sources.particles import (
    ELECTRON,
    MASS_MEV,
    STEP_CM,
    WINDOW_CM,
    Particle,
    Source,
    track,
)


def source(**changes) -> Source:
    return Source(Namespace(**{"n": 60, "size": 64, "seed": 0, "payload": "png", **changes}))


def picture(sample: dict) -> np.ndarray:
    with Image.open(io.BytesIO(sample["png"])) as image:
        assert image.mode == "L"
        return np.asarray(image)


def test_a_muon_of_300_mev_in_2_tesla_bends_with_a_radius_of_50_cm():
    assert particles.curvature_radius(300) == pytest.approx(50.0, rel=0.001)
    assert particles.curvature_radius(300, charge=-1) == pytest.approx(-50.0, rel=0.001)


def test_tracks_bend_as_much_as_the_radius_says():
    """Chord direction over the first 2 cm, mean of 400 muons.

    Half of length / radius; scattering averages out.
    """
    angles = []
    for i in range(400):
        steps = track(
            numpy_generator(1, "test", i),
            Particle(2.0, 8.0, 0.0, 300.0, MASS_MEV["muon"], 1, length=2.0),
            knock_ons=False,
        )
        (x0, y0, _), (x1, y1, _) = steps[0], steps[-1]
        angles.append(math.atan2(y1 - y0, x1 - x0))
    assert np.mean(angles) == pytest.approx(0.5 * 2.0 / 50.0, abs=4 * np.std(angles) / 20)
    assert np.mean(angles) > 10 * np.std(angles) / 20


def test_the_two_charges_bend_to_opposite_sides():
    for charge in (1, -1):
        muon = Particle(1.0, 8.0, 0.0, 300.0, MASS_MEV["muon"], charge, length=10.0)
        ends = [track(numpy_generator(i, "test"), muon, knock_ons=False)[-1][1] for i in range(20)]
        assert charge * (np.mean(ends) - 8.0) > 0.5


@pytest.mark.parametrize("momentum", [200, 300, 400, 600])
def test_the_range_of_protons_is_that_of_a_liquid_rich_in_bromine(momentum):
    """1.4 to 1.7 times that in water, in g/cm^2.

    Water by the Bragg-Kleeman rule, R = 0.0022 T^1.77 cm, T in MeV.
    """
    mass = MASS_MEV["proton"]
    kinetic = math.hypot(momentum, mass) - mass
    water = 0.0022 * kinetic**1.77
    distance, step = 0.0, 0.002
    while kinetic > 0.1:
        kinetic -= step * particles.stopping_power(math.sqrt(kinetic**2 + 2 * kinetic * mass), mass)
        distance += step
    assert 1.4 < distance * particles.DENSITY_G_CM3 / water < 1.7


def test_energy_loss_has_its_minimum_near_beta_gamma_3_to_4():
    """Without the density correction the rise after it is steeper than measured, the place of the
    minimum the same.
    """
    beta_gamma = np.geomspace(0.5, 50, 200)
    losses = [
        particles.stopping_power(bg * MASS_MEV["pion"], MASS_MEV["pion"]) for bg in beta_gamma
    ]
    assert 2.5 < beta_gamma[int(np.argmin(losses))] < 4.0


def test_slow_particles_scatter_more_and_leave_denser_tracks():
    assert particles.scattering_angle(150, MASS_MEV["proton"]) > 10 * particles.scattering_angle(
        1500, MASS_MEV["pion"]
    )
    first = {
        name: track(numpy_generator(0, "test"), Particle(1, 8, 0, 400, MASS_MEV[name], 1))[0][2]
        for name in ("proton", "pion")
    }
    beta2 = {name: 400**2 / (400**2 + MASS_MEV[name] ** 2) for name in first}
    assert first["proton"] / first["pion"] == pytest.approx(beta2["pion"] / beta2["proton"])
    assert first["pion"] * beta2["pion"] == pytest.approx(particles.BUBBLES_PER_CM * STEP_CM)


def test_a_stopping_proton_stops_and_electrons_curl_inside_the_chamber():
    proton = track(numpy_generator(0, "test"), Particle(8, 8, 0, 250, MASS_MEV["proton"], 1))
    assert 0.3 < len(proton) * STEP_CM < 2.5
    electron = track(numpy_generator(0, "test"), Particle(8, 8, 0, 20, ELECTRON, -1))
    reach = max(math.hypot(x - 8, y - 8) for x, y, _ in electron)
    assert reach < 2.1 * particles.curvature_radius(20) + 1


def test_images_are_never_empty_mostly_dark_and_all_different():
    images = np.stack([picture(source().make(i)) for i in range(60)])
    assert images.shape == (60, 64, 64) and images.dtype == np.uint8
    assert (images > 60).sum(axis=(1, 2)).min() >= 15, "every image shows a track"
    assert 0.02 < (images > 60).mean() < 0.15
    assert 8 < np.median(images) < 12, "the background"
    assert len({image.tobytes() for image in images}) == 60


def test_an_image_depends_on_its_seed_and_number_alone():
    few, many = source(n=10), source(n=1000)
    many.make(3)
    assert few.make(7) == many.make(7) != source(seed=1).make(7)


@pytest.mark.parametrize(("payload", "field"), [("jpeg", "jpg"), ("raw", "npy")])
def test_other_payloads_hold_the_same_image(payload, field):
    other, pixels = source(payload=payload), np.zeros((64, 64, 1), np.uint8)
    assert (
        other.sample == {"kind": "image", "channels": 1, "size": 64, "field": field}
        and other.options["payload"] == payload
    )
    image_codec.decode(other.make(7)[field], field, pixels)
    assert np.abs(pixels[..., 0].astype(int) - picture(source().make(7))).max() <= (
        20 if payload == "jpeg" else 0
    )


def test_a_larger_image_shows_the_same_event():
    small, large = source(size=64).make(5), source(size=128).make(5)
    assert small["json"] == large["json"]
    halved = picture(large).reshape(64, 2, 64, 2).mean(axis=(1, 3))
    assert np.corrcoef(halved.ravel(), picture(small).ravel())[0, 1] > 0.9


def test_metadata_names_the_event():
    about = [json.loads(source().make(i)["json"]) for i in range(60)]
    assert {entry["event"] for entry in about} == {"beam", "star", "v0", "gamma"}
    assert all(2 <= entry["tracks"] <= 3 for entry in about if entry["event"] in ("v0", "gamma"))


def test_bubbles_are_all_on_the_film():
    """Deposited and blurred counts keep their sum away from the border; y grows downwards."""
    deposited = particles._deposit(np.array([[20.0, 40.5]]), np.array([100]), 64)
    assert deposited.sum() == pytest.approx(100) and deposited[40, 19] == deposited[
        40, 20
    ] == pytest.approx(50)
    assert particles._blur(deposited, 0.6).sum() == pytest.approx(100, rel=1e-3)
    assert (
        particles._deposit(
            np.array([[-5.0, 3.0], [WINDOW_CM * 4 + 5, 3.0]]), np.array([9, 9]), 64
        ).sum()
        == 0
    )


def test_all_wrong_options_are_named_at_once():
    with pytest.raises(
        ConfigError,
        match=(
            r"(?s)3 errors on.*--n: found '1', allowed: 2 or more.*--size: found '8', allowed:"
            r" 16 to"
            r" 1,024.*--seed: found '-1', allowed: 0 or more"
        ),
    ):
        command_of("particles").parse(["OUT", "--n", "1", "--size=8", "seed=-1"])

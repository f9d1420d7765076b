"""Synthetic bubble-chamber photographs: charged tracks in a magnetic field, drawn from stated
physics with NumPy.

A flat chamber of a heavy freon-like liquid, so all tracks lie in the image plane, 16 cm wide at any
image size. Momenta in MeV/c, energies and masses in MeV, lengths in cm, angles in rad.

- bending: radius R = p / (2.998 B) for charge 1, B in T
- energy loss by collisions: Bethe, in the form for particles much heavier than the electron and
  without density correction; also used for electrons, where the loss by bremsstrahlung, E / X0 per
  cm on average, is what matters
- multiple scattering: Highland's angle 13.6 MeV / (beta p) sqrt(dx / X0) in the plane, for each
  step; without its logarithmic term, which holds for a whole layer and does not add up over steps
- knock-on electrons: number proportional to 1 / T^2 up to the largest energy transfer, emitted at
  the angle that kinematics fixes
- number of bubbles along a track proportional to 1 / beta^2, Poisson
- photograph: Gaussian optics, saturating film, vignetting, shot and read-out noise

Source of the formulas: Particle Data Group, Review of Particle Physics, "Passage of Particles
Through Matter". Image i depends on the seed and i alone (for one version of NumPy and Pillow).
"""

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from distgan.core.arguments import Arguments, whole
from distgan.core.rng import numpy_generator
from distgan.shards.codecs import image as image_codec
from distgan.shards.sources._base import SourceReport

EXAMPLES = [
    (
        "330 images of 64 x 64: about 300 to train on, the rest to validate",
        "distgan shard particles OUT",
    ),
    ("more of them, and larger", "distgan shard particles OUT --n 5000 --size 128 --seed 1"),
]
RECIPE = "sagan"

MASS_MEV = {"electron": 0.511, "muon": 105.66, "pion": 139.57, "proton": 938.27}
ELECTRON = MASS_MEV["electron"]

# A liquid roughly like CF3Br.
DENSITY_G_CM3 = 1.5
Z_OVER_A = 0.46
MEAN_EXCITATION_MEV = 250e-6
RADIATION_LENGTH_CM = 11.0
BETHE_K_MEV_CM2 = 0.307075  # 4 pi N_A r_e^2 m_e c^2, per mol

FIELD_T = 2.0
BEND_MEV_PER_T_CM = 2.99792458  # p = 2.998 B R
WINDOW_CM = 16.0
STEP_CM = 0.125
MAX_STEPS = 4000  # ends the rare electron that loses nothing

KNOCK_ON_MIN_MEV = 3.0  # less energetic ones are part of the track's width
BUBBLES_PER_CM = 12.0  # of a particle with beta = 1
BUBBLE_SHIFT_CM = 0.03
OPTICS_SIGMA_CM = 0.15
FILM_SCALE = 96.0  # bubbles per cm^2 that expose the film to 1 - 1/e
PHOTONS_PER_LEVEL = 2.0
READ_NOISE_LEVELS = 1.5
BACKGROUND_LEVELS = 9.0

SIZES = (16, 1024)


@dataclass(frozen=True)
class Particle:
    """A charged particle at its start: x, y in cm from the upper left corner, direction in rad,
    momentum in MeV/c.
    """

    x: float
    y: float
    direction: float
    momentum: float
    mass: float
    charge: int
    length: float = math.inf  # of the path in cm, for one that ends in an interaction


OPTIONS = (
    whole("n", "images, training and validation together", 2, default=330),
    whole("size", "width and height in pixels", *SIZES, default=64),
    whole("seed", "another seed makes other images", 0, default=0),
    image_codec.PAYLOAD,
)


class Source:
    def __init__(self, args: Arguments):
        self.seed, self.size, self.payload = args.seed, args.size, args.payload
        self.options: dict[str, Any] = {
            "n": args.n,
            "size": args.size,
            "seed": args.seed,
            "payload": args.payload,
        }
        self.origin: dict[str, Any] = {}
        self.sample: dict[str, Any] = {
            "kind": "image",
            "channels": 1,
            "size": args.size,
            "field": image_codec.FIELDS[args.payload],
        }
        self.keys = [f"{i:07d}" for i in range(args.n)]

    def check(self, workers: int) -> SourceReport:
        """Return an empty report: every image is valid by construction."""
        return SourceReport()

    def group(self, i: int) -> str:
        return self.keys[i]

    def make(self, i: int) -> dict[str, Any]:
        kind, tracks, picture = photograph(numpy_generator(self.seed, "particles", i), self.size)
        field, data = image_codec.encode(picture, self.payload)
        return {
            "__key__": self.keys[i],
            field: data,
            "json": json.dumps({"event": kind, "tracks": tracks}).encode(),
        }


def photograph(rng: np.random.Generator, size: int) -> tuple[str, int, np.ndarray]:
    """Draw one event: its kind, number of tracks (without knock-on electrons), and the image.

    The image is uint8 [size, size].
    """
    kind, particles = event(rng)
    bubbles = [bubble for particle in particles for bubble in track(rng, particle)]
    return kind, len(particles), expose(rng, np.array(bubbles), size)


def event(rng: np.random.Generator) -> tuple[str, list[Particle]]:
    """Draw a kind of event and its charged particles; half of the events have a stray electron."""
    kind = str(rng.choice(["beam", "star", "v0", "gamma"], p=[0.3, 0.4, 0.2, 0.1]))
    x, y = rng.uniform(0.2, 0.6) * WINDOW_CM, rng.uniform(0.25, 0.75) * WINDOW_CM
    if kind == "beam":  # pions that cross the chamber
        particles = [_beam_pion(rng) for _ in range(rng.integers(1, 4))]
    elif kind == "star":
        # a beam pion, bent by less than the width of a track, hits a nucleus at (x, y)
        particles = [Particle(0.0, y, 0.0, 4000.0, MASS_MEV["pion"], _sign(rng), length=x)]
        for _ in range(rng.integers(2, 6)):
            mass = MASS_MEV[str(rng.choice(["pion", "proton", "proton", "muon"]))]
            direction, momentum = rng.uniform(-2.6, 2.6), _log_uniform(rng, 120, 900)
            particles.append(Particle(x, y, direction, momentum, mass, _sign(rng)))
    elif kind == "v0":  # an invisible neutral particle decays into two of opposite charge
        middle = rng.uniform(-0.6, 0.6)
        particles = []
        for charge, name in ((1, str(rng.choice(["pion", "proton"]))), (-1, "pion")):
            direction = middle + charge * rng.uniform(0.1, 0.5)
            momentum = rng.uniform(120, 600)
            particles.append(Particle(x, y, direction, momentum, MASS_MEV[name], charge))
    else:  # an invisible photon becomes an electron and a positron
        particles = [
            Particle(x, y, rng.uniform(-0.1, 0.1), rng.uniform(8, 60), ELECTRON, charge)
            for charge in (1, -1)
        ]
    if rng.random() < 0.5:
        particles.append(
            Particle(
                rng.uniform(0, WINDOW_CM),
                rng.uniform(0, WINDOW_CM),
                rng.uniform(-math.pi, math.pi),
                _log_uniform(rng, 4, 30),
                ELECTRON,
                -1,
            )
        )
    return kind, particles


def _beam_pion(rng: np.random.Generator) -> Particle:
    y, direction = rng.uniform(0.1, 0.9) * WINDOW_CM, 0.03 * rng.standard_normal()
    return Particle(0.0, y, direction, _log_uniform(rng, 600, 4000), MASS_MEV["pion"], _sign(rng))


def track(
    rng: np.random.Generator, particle: Particle, knock_ons: bool = True
) -> list[tuple[float, float, float]]:
    """Follow a particle until it stops or leaves the chamber, and its knock-on electrons.

    Return (x, y, mean number of bubbles) of every step.
    """
    steps: list[tuple[float, float, float]] = []
    x, y, direction = particle.x, particle.y, particle.direction
    momentum, mass = particle.momentum, particle.mass
    for _ in range(math.ceil(min(MAX_STEPS, particle.length / STEP_CM))):
        energy = math.hypot(momentum, mass)
        beta = momentum / energy
        steps.append((x, y, BUBBLES_PER_CM * STEP_CM / beta**2))
        if knock_ons and mass > ELECTRON:
            steps += _knock_on(rng, x, y, direction, momentum, mass)
        energy -= stopping_power(momentum, mass) * STEP_CM
        if mass == ELECTRON:
            energy -= energy * STEP_CM / RADIATION_LENGTH_CM * rng.exponential()
        if energy <= mass * 1.0005:
            break
        momentum = math.sqrt(energy**2 - mass**2)
        direction += (
            STEP_CM / curvature_radius(momentum, particle.charge)
            + scattering_angle(momentum, mass) * rng.standard_normal()
        )
        x, y = x + math.cos(direction) * STEP_CM, y + math.sin(direction) * STEP_CM
        if not (-1 < x < WINDOW_CM + 1 and -1 < y < WINDOW_CM + 1):
            break
    return steps


def curvature_radius(momentum: float, charge: int = 1) -> float:
    """Return the radius in cm of the circle in the magnetic field, with the sign of the charge."""
    return momentum / (BEND_MEV_PER_T_CM * FIELD_T * charge)


def stopping_power(momentum: float, mass: float) -> float:
    """Return the mean energy loss by collisions in MeV/cm.

    The logarithm is at least 1: below, Bethe's formula does not hold, and the range is short.
    """
    beta_gamma = momentum / mass
    beta2 = beta_gamma**2 / (1 + beta_gamma**2)
    logarithm = math.log(2 * ELECTRON * beta_gamma**2 / MEAN_EXCITATION_MEV) - beta2
    return BETHE_K_MEV_CM2 * Z_OVER_A * DENSITY_G_CM3 / beta2 * max(logarithm, 1.0)


def scattering_angle(momentum: float, mass: float) -> float:
    """Return the standard deviation in rad of the deflection in one step."""
    beta = momentum / math.hypot(momentum, mass)
    return 13.6 / (beta * momentum) * math.sqrt(STEP_CM / RADIATION_LENGTH_CM)


def _knock_on(
    rng: np.random.Generator, x: float, y: float, direction: float, momentum: float, mass: float
) -> list:
    """Return the track of an electron struck in this step, or an empty list."""
    largest = 2 * ELECTRON * (momentum / mass) ** 2
    if largest <= KNOCK_ON_MIN_MEV:
        return []
    beta2 = momentum**2 / (momentum**2 + mass**2)
    spectrum = 1 / KNOCK_ON_MIN_MEV - 1 / largest
    rate = 0.5 * BETHE_K_MEV_CM2 * Z_OVER_A * DENSITY_G_CM3 / beta2 * spectrum
    if rng.random() >= rate * STEP_CM:
        return []
    kinetic = 1 / rng.uniform(1 / largest, 1 / KNOCK_ON_MIN_MEV)
    electron, fastest = (math.sqrt(t**2 + 2 * t * ELECTRON) for t in (kinetic, largest))
    angle = math.acos(min(1.0, kinetic / electron * fastest / largest))
    return track(
        rng, Particle(x, y, direction + angle * _sign(rng), electron, ELECTRON, -1), knock_ons=False
    )


def expose(rng: np.random.Generator, bubbles: np.ndarray, size: int) -> np.ndarray:
    """Photograph bubbles [n, 3] = (x, y, mean number): uint8 [size, size]."""
    pixels_per_cm = size / WINDOW_CM
    counts = rng.poisson(bubbles[:, 2])
    positions = bubbles[:, :2] + BUBBLE_SHIFT_CM * rng.standard_normal((len(bubbles), 2))
    image = _deposit(positions * pixels_per_cm, counts, size)
    density = _blur(image, OPTICS_SIGMA_CM * pixels_per_cm) * pixels_per_cm**2
    down, right = np.mgrid[:size, :size] / size - 0.5
    levels = (
        255 * (1 - np.exp(-density / FILM_SCALE)) * (1 - 0.35 * (right**2 + down**2))
        + BACKGROUND_LEVELS
        + 4 * right
    )
    noisy = rng.poisson(levels * PHOTONS_PER_LEVEL) / PHOTONS_PER_LEVEL
    noisy = noisy + READ_NOISE_LEVELS * rng.standard_normal(levels.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def _deposit(positions: np.ndarray, counts: np.ndarray, size: int) -> np.ndarray:
    """Distribute each count over the four pixels around its position [n, 2] = (x, y), in pixels.

    Counts outside the image are lost.
    """
    image = np.zeros((size, size))
    corner = np.floor(positions - 0.5).astype(int)
    part = positions - 0.5 - corner
    for right in (0, 1):
        for down in (0, 1):
            column, row = corner[:, 0] + right, corner[:, 1] + down
            inside = (column >= 0) & (column < size) & (row >= 0) & (row < size)
            share = counts * np.abs(1 - right - part[:, 0]) * np.abs(1 - down - part[:, 1])
            np.add.at(image, (row[inside], column[inside]), share[inside])
    return image


def _blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Blur with a Gaussian of `sigma` pixels, dark outside.

    Uses shifted sums, because the last bits of a matrix product depend on the BLAS library.
    """
    reach = math.ceil(4 * sigma)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights /= weights.sum()
    for axis in (0, 1):
        padded = np.pad(image, [(reach, reach) if a == axis else (0, 0) for a in (0, 1)])
        image = sum(
            w * np.take(padded, range(k, k + image.shape[axis]), axis)
            for k, w in enumerate(weights)
        )
    return image


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def _sign(rng: np.random.Generator) -> int:
    return 1 if rng.random() < 0.5 else -1

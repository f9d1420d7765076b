"""Pictures of an audit of images: a random sheet, statistics, flagged images, duplicates."""

from pathlib import Path

from distgan.core.rng import numpy_generator
from distgan.shards.audit import images
from distgan.shards.audit.checks import FAIL
from distgan.shards.audit.findings import Checks, Finding
from distgan.shards.audit.plots import COLOURS, Panel, histograms, reason, sheet, values_of

MAX_IMAGES = 64
MAX_PAIRS = 12


def draw_images(
    out: Path,
    reports: list[images.ImageReport],
    examiner: images.Examiner,
    findings: list[Finding],
    checks: Checks,
) -> list[str]:
    """Write the pictures of an image set; return their names."""
    places = {str(report.place): report.place for report in reports}
    flagged = [finding for finding in findings if finding.sample in places]
    generator = numpy_generator(0, "audit/sheet")
    picked = sorted(generator.permutation(len(reports))[:MAX_IMAGES].tolist())
    cells = [(examiner.pixels(reports[i].place), str(reports[i].place), "black") for i in picked]
    title = f"{len(cells)} of {len(reports)} images, drawn at random"
    names = [sheet(out / "images.png", title, cells)]
    title = f"Levels of {len(reports)} images"
    names.append(histograms(out / "statistics.png", title, _panels(reports, checks)))
    reasons: dict[str, list[Finding]] = {}
    for finding in sorted(flagged, key=lambda finding: finding.level != FAIL):
        if not finding.other:
            reasons.setdefault(finding.sample, []).append(finding)
    if reasons:
        cells = [
            (
                examiner.pixels(places[name]),
                "\n".join([*map(reason, own), name]),
                COLOURS[own[0].level],
            )
            for name, own in list(reasons.items())[:MAX_IMAGES]
        ]
        title = f"{len(cells)} of {len(reasons)} images with findings of their own, FAIL first"
        names.append(sheet(out / "flagged.png", title, cells))
    similar = sorted(
        (finding for finding in flagged if finding.other),
        key=lambda finding: (finding.level != FAIL, -(finding.value or 1.0)),
    )
    if similar:
        cells = []
        for finding in similar[:MAX_PAIRS]:
            caption = f"{reason(finding)}\n{finding.sample}"
            pixels = examiner.pixels(places[finding.sample])
            cells.append((pixels, caption, COLOURS[finding.level]))
            cells.append((examiner.pixels(places[finding.other]), f"\n{finding.other}", "black"))
        title = (
            f"{len(cells) // 2} of {len(similar)} pairs of equal or almost equal images, FAIL (in"
            " both splits) first"
        )
        names.append(sheet(out / "duplicates.png", title, cells, pairs=True))
    return names


def _panels(reports: list[images.ImageReport], checks: Checks) -> list[Panel]:
    extremes = {
        "darkest 1 %": values_of(reports, "low"),
        "brightest 1 %": values_of(reports, "high"),
    }
    return [
        ("Mean of the pixels", "level, 0 black … 255 white", values_of(reports, "mean"), None),
        (
            "Contrast: standard deviation of the pixels",
            "levels",
            values_of(reports, "contrast"),
            checks.named("contrast", "images"),
        ),
        ("Range of 98 % of the pixels", "level", extremes, None),
        (
            "Saturated: share of pixels at 254 or 255",
            "share",
            values_of(reports, "saturated"),
            checks.named("saturated", "images"),
        ),
    ]

"""The lines that docs/launching.md documents, run as they stand there.

Each starts what it says, and trains what one process trains.
"""

import json
import os
import re
import shlex
import socket

import pytest
from processes import BIN, ROOT, TINY, largest_difference, line, run

PAGE = (ROOT / "docs" / "launching.md").read_text()
SECTION = PAGE.split("## Five ways to start it")[1].split("\n## ")[0]
LINES = [
    text for block in re.findall("```\n(.*?)```", SECTION, re.DOTALL) for text in block.splitlines()
]
WAYS = [
    "accelerate, one process",
    "accelerate",
    "accelerate with DeepSpeed",
    "torchrun",
    "deepspeed",
    "torchrun with DeepSpeed",
]
EXPECTED = [
    (1, "one process"),
    (2, "DDP"),
    (2, "DeepSpeed ZeRO 1"),
    (2, "DDP"),
    (2, "DeepSpeed ZeRO 1"),
    (2, "DeepSpeed ZeRO 2"),
]
STEPS = 20
TOLERANCE = 2e-5  # float32, at a width at which hardly an activation changes sign: docs/equality.md


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def launch(text: str, *settings: str, data: str, code: int = 0) -> str:
    """A line of the page, with other data and further settings; what it prints."""
    words = [
        f"data={data}" if word == "data=data/particles" else word for word in shlex.split(text)
    ]
    # All others find a free port by themselves, which tests in parallel need.
    port = ["--master_port", free_port()] if words[0] == "deepspeed" else []
    # The deepspeed launcher makes the GPUs visible that the tests have hidden.
    return run(
        [str(BIN / words[0]), *port, *words[1:]],
        *settings,
        "machine.device=cpu",
        cwd=ROOT,
        code=code,
        PATH=f"{BIN}{os.pathsep}{os.environ['PATH']}",
    )


@pytest.fixture(scope="module")
def settings():
    return [*TINY, "epochs=5"]


@pytest.fixture(scope="module")
def reference(particles, settings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference") / "run"
    run(
        line("python"),
        "sagan",
        f"data={particles}",
        f"machine.folder={folder}",
        *settings,
        cwd=ROOT,
    )
    return folder


def test_there_are_five_lines_and_one_more():
    assert [text.split()[0] for text in LINES] == [
        "accelerate",
        "accelerate",
        "accelerate",
        "torchrun",
        "deepspeed",
        "torchrun",
    ]


@pytest.mark.gate
@pytest.mark.parametrize(("text", "expected"), list(zip(LINES, EXPECTED, strict=True)), ids=WAYS)
def test_a_documented_line_trains_what_one_process_trains(
    text, expected, particles, reference, settings, tmp_path
):
    launch(text, f"machine.folder={tmp_path / 'run'}", *settings, data=str(particles))
    attempt = json.loads((tmp_path / "run" / "attempts" / "000" / "attempt.json").read_text())
    assert (attempt["processes"], attempt["engine"]) == expected
    found = largest_difference(reference, tmp_path / "run", STEPS)
    print(
        f"{text.split()[0]}, {expected[0]} processes, {expected[1]}: largest relative difference"
        f" {found:.1e}"
    )
    assert found < TOLERANCE


@pytest.mark.gate
@pytest.mark.parametrize(
    ("text", "code"), list(zip(LINES[:5], [1, 1, 1, 1, 2], strict=True)), ids=WAYS[:5]
)
def test_what_a_user_sees_of_a_run_that_is_refused(text, code, particles):
    """Our one message, then what the launcher says to an exit code of 2.

    Deepspeed alone passes it on.
    """
    output = launch(
        text, "machine.engine=deepspeed", "machine.zero_stage=3", data=str(particles), code=code
    )
    assert (
        len(
            re.findall(
                "^error: .*ZeRO stage 3 is refused|^  ZeRO stage 3 is refused", output, re.MULTILINE
            )
        )
        == 1
    )
    assert "rank 1" not in output.split("error: ")[1].split("\n")[0]

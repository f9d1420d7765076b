"""The cause of a failure, from the text of its logs."""

import pytest

from distgan.launchers.commands import causes


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("RuntimeError: CUDA out of memory. Tried", "out of GPU memory"),
        ("DefaultCPUAllocator: can't allocate memory", "out of memory"),
        ("slurmstepd: error: Detected 1 oom-kill event", "out of memory"),
        ("error: bad numbers: 6 of", "bad numbers"),
        ("OSError: [Errno 28] No space left on device", "disk full"),
        ("ModuleNotFoundError: No module named 'x'", "import error"),
        ("[gloo] Timed out waiting 1800ms", "lost another process"),
        ("EADDRINUSE", "port in use"),
        ("Timeout (0:10:00)!", "hung"),
        ("error: batch: found 7", "refused"),
        ("Traceback (most recent call last):\nZeroDivisionError: x", "an exception"),
    ],
)
def test_signs(text, name):
    found = causes.match(text)
    assert found.name == name and found.evidence


def test_the_one_that_failed_first_is_the_cause():
    text = (
        "rank0.log\nZeroDivisionError: x\nrank1.log\nRuntimeError: [pair.cc] Connection closed by"
        " peer\nChildFailedError: y"
    )
    assert causes.match(text).name == "an exception" and "ZeroDivisionError" in " ".join(
        causes.match(text).evidence
    )
    assert (
        causes.match(
            "UserWarning: No module named 'triton'\nRuntimeError: CUDA error: an illegal access"
        ).name
        == "an exception"
    )
    assert (
        causes.match("RuntimeError: [pair.cc] Connection closed by peer\nChildFailedError: y").name
        == "lost another process"
    )

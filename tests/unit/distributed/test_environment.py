"""What launchers ask for is honoured or refused, never ignored."""

import json
import os
import subprocess
import sys

import pytest

from distgan.config.sections import Machine
from distgan.core.errors import LaunchError
from distgan.distributed.environment import EngineChoice, resolve_engine, settled_variables

DEEPSPEED = {
    "ACCELERATE_USE_DEEPSPEED": "true",
    "ACCELERATE_DEEPSPEED_ZERO_STAGE": "1",
    "ACCELERATE_MIXED_PRECISION": "no",
}
BY_DEEPSPEED = {"CROSS_SIZE": "1", "CROSS_RANK": "0", "LOCAL_SIZE": "2"}


@pytest.fixture
def engine(monkeypatch):
    """`engine({variable: value}, precision, setting=…)` for one of two processes."""
    for name in os.environ:
        if name.startswith(("ACCELERATE_", "CROSS_", "LOCAL_")) or name in ("RANK", "WORLD_SIZE"):
            monkeypatch.delenv(name)

    def ask(environment=None, precision="float32", *, processes=2, **settings):
        with monkeypatch.context() as patch:
            for name, value in {"WORLD_SIZE": str(processes), **(environment or {})}.items():
                patch.setenv(name, value)
            return resolve_engine(Machine(**settings), precision)

    return ask


@pytest.fixture
def file(tmp_path):
    """A DeepSpeed JSON file of these contents; its path."""

    def write(contents) -> str:
        path = tmp_path / "zero.json"
        path.write_text(contents if isinstance(contents, str) else json.dumps(contents))
        return str(path)

    return write


# ---- which engine
@pytest.mark.parametrize(
    ("environment", "settings", "asked"),
    [
        ({}, {}, EngineChoice("ddp")),
        (
            {
                "ACCELERATE_MIXED_PRECISION": "no",
                "ACCELERATE_DYNAMO_BACKEND": "NO",
                "ACCELERATE_DYNAMO_MODE": "default",
            },
            {},
            EngineChoice("ddp"),
        ),
        (DEEPSPEED, {}, EngineChoice("deepspeed", 1)),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, {}, EngineChoice("deepspeed", 0)),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, {"zero_stage": 2}, EngineChoice("deepspeed", 2)),
        (DEEPSPEED, {"zero_stage": 1, "engine": "deepspeed"}, EngineChoice("deepspeed", 1)),
        (BY_DEEPSPEED, {}, EngineChoice("deepspeed", 0)),
        (BY_DEEPSPEED, {"engine": "ddp"}, EngineChoice("ddp")),  # it only starts processes
        ({}, {"engine": "deepspeed", "zero_stage": 2}, EngineChoice("deepspeed", 2)),
        (
            {"ACCELERATE_USE_DEEPSPEED": "false", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"},
            {},
            EngineChoice("ddp"),
        ),  # accelerate takes no notice of it, either
        (
            DEEPSPEED
            | {
                "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4",
                "ACCELERATE_GRADIENT_CLIPPING": "0.0",
            },
            {"accumulation": 4},
            EngineChoice("deepspeed", 1),
        ),
    ],
)
def test_an_engine_is_found(environment, settings, asked, engine):
    assert engine(environment, **settings) == asked


def test_one_process_has_no_engine(engine):
    assert (
        engine(DEEPSPEED, processes=1)
        == engine(processes=1, engine="deepspeed", zero_stage=2)
        == EngineChoice("ddp")
    )


def test_accelerate_does_not_act_upon_what_is_settled(engine, monkeypatch):
    """It would want transformers for its plugin, and compile networks that are compiled. A second
    run of the program finds the same variables.
    """
    given = {"ACCELERATE_DYNAMO_BACKEND": "INDUCTOR", "ACCELERATE_MIXED_PRECISION": "bf16"}
    for name, value in (DEEPSPEED | given).items():
        monkeypatch.setenv(name, value)
    asked = [engine({}, "bf16", compile="default")]
    with settled_variables():
        assert not {name for name in os.environ if name.startswith("ACCELERATE_")}
    asked.append(engine({}, "bf16", compile="default"))
    assert asked[0] == asked[1] == EngineChoice("deepspeed", 1)


def test_precision_and_compilation_may_be_said_twice(engine):
    engine({"ACCELERATE_MIXED_PRECISION": "bf16"}, "bf16")
    engine(
        {"ACCELERATE_DYNAMO_BACKEND": "INDUCTOR", "ACCELERATE_DYNAMO_MODE": "reduce-overhead"},
        compile="reduce-overhead",
    )
    engine(
        {"ACCELERATE_MIXED_PRECISION": "no"}, "bf16", compile="default"
    )  # "no" leaves it to the run


# ---- refused
@pytest.mark.parametrize(
    ("environment", "settings", "told"),
    [
        (
            DEEPSPEED,
            {"engine": "ddp"},
            "machine.engine=ddp, but accelerate was configured for DeepSpeed",
        ),
        (DEEPSPEED, {"zero_stage": 2}, "machine.zero_stage is 2, accelerate's zero_stage is 1"),
        (
            DEEPSPEED | {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"},
            {},
            (
                "ZeRO stage 3 is refused: rank 0 alone .* comes from accelerate's zero_stage;"
                " allowed are 0, 1 and 2"
            ),
        ),
        (
            DEEPSPEED | {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "x"},
            {},
            "accelerate's zero_stage: found 'x', allowed are 0, 1 and 2",
        ),
        (
            {},
            {"engine": "deepspeed", "zero_stage": 3},
            "ZeRO stage 3 is refused: .*double backward.* comes from machine.zero_stage",
        ),
        (
            {},
            {"zero_stage": 1},
            "machine.zero_stage=1 is for DeepSpeed, .* set machine.engine=deepspeed",
        ),
        (
            {},
            {"engine": "ddp", "deepspeed_config": "z.json"},
            "machine.deepspeed_config=z.json is for DeepSpeed",
        ),
        (
            DEEPSPEED | {"ACCELERATE_DEEPSPEED_CONFIG_FILE": "a.json"},
            {"deepspeed_config": "b.json"},
            "are two files",
        ),
        (
            DEEPSPEED | {"ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "cpu"},
            {},
            "offload_optimizer_device: cpu",
        ),
        (
            DEEPSPEED | {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"},
            {"accumulation": 2},
            "gradient_accumulation_steps: 4, but machine.accumulation=2",
        ),
        (
            DEEPSPEED | {"ACCELERATE_GRADIENT_CLIPPING": "1.0"},
            {},
            "gradient_clipping: 1.0; leave it out .*clip=",
        ),
        (
            {"ACCELERATE_MIXED_PRECISION": "bf16"},
            {},
            'precision=float32; set precision=bf16, or write mixed_precision: "no"',
        ),
        (
            {"ACCELERATE_MIXED_PRECISION": "fp8"},
            {},
            'fp8, but precision=float32; write mixed_precision: "no"',
        ),
        (
            {"ACCELERATE_USE_FSDP": "true"},
            {},
            "configured for FSDP .ACCELERATE_USE_FSDP=true.*configs/accelerate.yaml",
        ),
        ({"ACCELERATE_USE_MEGATRON_LM": "true"}, {}, "Megatron-LM"),
        (
            {"ACCELERATE_DYNAMO_BACKEND": "INDUCTOR"},
            {},
            "machine.compile=null; set machine.compile=default",
        ),
        (
            {"ACCELERATE_DYNAMO_BACKEND": "EAGER"},
            {"compile": "default"},
            "dynamo_backend: eager; write dynamo_backend",
        ),
        (
            {"ACCELERATE_DYNAMO_BACKEND": "INDUCTOR", "ACCELERATE_DYNAMO_USE_DYNAMIC": "True"},
            {"compile": "default"},
            "dynamo_use_dynamic",
        ),
        (
            {"ACCELERATE_USE_CPU": "true"},
            {"device": "cuda"},
            "machine.device=cuda, but accelerate was configured with use_cpu: true",
        ),
    ],
)
def test_what_contradicts_or_is_not_trained_is_refused(
    environment, settings, told, engine, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    for name in ("a.json", "b.json", "z.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(LaunchError, match=f"(?s){told}"):
        engine(environment, **settings)


def test_all_faults_are_told_at_once(engine, file):
    with pytest.raises(LaunchError) as told:
        engine(
            {"ACCELERATE_USE_FSDP": "true", "ACCELERATE_MIXED_PRECISION": "bf16"},
            engine="deepspeed",
            deepspeed_config=file({"optimizer": {}, "x": 1}),
        )
    assert str(told.value).startswith("4 faults") and len(str(told.value).splitlines()) == 5


# ---- a DeepSpeed JSON
def test_tuning_keys_are_taken(engine, file):
    path = file(
        {
            "train_batch_size": "auto",
            "gradient_accumulation_steps": 3,
            "gradient_clipping": 0.0,
            "fp16": {"enabled": False, "loss_scale": 0},
            "bf16": {"enabled": "auto"},
            "optimizer": "auto",
            "steps_per_print": 100,
            "zero_optimization": {
                "stage": 2,
                "reduce_bucket_size": 5e6,
                "overlap_comm": True,
                "allgather_bucket_size": "auto",
                "offload_optimizer": {"device": "none"},
            },
        }
    )
    keys = {
        "steps_per_print": 100,
        "zero_optimization": {"reduce_bucket_size": 5_000_000, "overlap_comm": True},
    }
    expected = EngineChoice("deepspeed", 2, keys)
    assert engine(engine="deepspeed", deepspeed_config=path, accumulation=3) == expected
    assert (
        engine(
            DEEPSPEED
            | {
                "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2",
                "ACCELERATE_DEEPSPEED_CONFIG_FILE": path,
            },
            accumulation=3,
        )
        == expected
    )
    assert isinstance(expected.deepspeed["zero_optimization"]["reduce_bucket_size"], int)


def test_a_files_precision_may_be_the_runs(engine, file):
    assert (
        engine(
            {}, "bf16", engine="deepspeed", deepspeed_config=file({"bf16": {"enabled": True}})
        ).deepspeed
        == {}
    )


@pytest.mark.parametrize(
    ("contents", "told"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON.*line 1"),
        ("[1]", "must hold a mapping.*found list"),
        (
            '{"steps_per_print": 1, "steps_per_print": 2}',
            "not valid JSON: key steps_per_print stands twice",
        ),
        ("[" * 100_000, "not valid JSON"),
        (
            {"train_batch_size": 16},
            r"train_batch_size: found 16; leave it out, the setting is batch \(the global batch\)",
        ),
        (
            {"train_micro_batch_size_per_gpu": 8},
            "train_micro_batch_size_per_gpu: found 8; .* batch and machine.accumulation",
        ),
        (
            {"gradient_accumulation_steps": 2},
            "gradient_accumulation_steps: found 2; .* machine.accumulation",
        ),
        ({"gradient_clipping": 1.0}, "gradient_clipping: found 1.0; .*clip="),
        ({"optimizer": {"type": "AdamW"}}, 'optimizer: found {"type": "AdamW"}; .*g_lr'),
        ({"scheduler": {"type": "WarmupLR"}}, "scheduler: found .*its schedule"),
        ({"bf16": {"enabled": True}}, "bf16: found .* and precision=float32; .*precision=bf16"),
        ({"fp16": {"enabled": True}}, "fp16: found"),
        ({"torch_autocast": {"enabled": True, "dtype": "bfloat16"}}, "torch_autocast: found"),
        ({"prescale_gradients": True}, "prescale_gradients: not a key that is taken"),
        ({"flops_profiler": {"enabled": True}}, "flops_profiler: not a key that is taken"),
        (
            {"steps_per_print": True},
            "steps_per_print: found true, allowed is a whole number above 0",
        ),
        ({"zero_optimization": 2}, "zero_optimization: found 2, allowed is a mapping"),
        (
            {"zero_optimization": {"stage": 3, "stage3_max_live_parameters": 1}},
            "ZeRO stage 3 is refused.*zero.json; allowed are 0, 1 and 2",
        ),
        ({"zero_optimization": {"stage": [1]}}, r"found '\[1\]', allowed are 0, 1 and 2"),
        (
            {"zero_optimization": {"reduce_bucket_size": -1}},
            "zero_optimization.reduce_bucket_size: found -1, allowed is a whole number",
        ),
        (
            {"zero_optimization": {"overlap_comm": 1}},
            "zero_optimization.overlap_comm: found 1, allowed is true or false",
        ),
        (
            {"zero_optimization": {"offload_optimizer": {"device": "cpu"}}},
            'zero_optimization.offload_optimizer: found device "cpu"',
        ),
        (
            {"zero_optimization": {"zero_quantized_gradients": True}},
            "zero_optimization.zero_quantized_gradients: not a key that is taken",
        ),
    ],
)
def test_a_file_that_would_change_what_is_trained_is_refused(contents, told, engine, file):
    with pytest.raises(LaunchError, match=f"(?s){told}"):
        engine(engine="deepspeed", deepspeed_config=file(contents))


def test_a_file_that_cannot_be_read(engine, tmp_path):
    with pytest.raises(
        LaunchError, match="cannot read the DeepSpeed configuration .*nowhere.json: No such file"
    ):
        engine(engine="deepspeed", deepspeed_config=str(tmp_path / "nowhere.json"))
    with pytest.raises(
        LaunchError, match="cannot read the DeepSpeed configuration .*: Is a directory"
    ):
        engine(engine="deepspeed", deepspeed_config=str(tmp_path))
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LaunchError, match="bytes.json is not valid JSON"):
        engine(engine="deepspeed", deepspeed_config=str(tmp_path / "bytes.json"))


@pytest.mark.parametrize("words", [["train", "sagan", "data=x"], ["run", "sagan", "data=x"]])
@pytest.mark.gate
def test_an_address_space_that_is_too_small_is_told_before_torch_is_imported(words, tmp_path):
    line = ["bash", "-c", 'ulimit -v 3000000; exec "$@"', "-", sys.executable, "-m", "distgan"]
    done = subprocess.run([*line, *words], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("error: ") == 1, done.stderr
    assert "3.07 GB of address space (ulimit -v)" in done.stderr
    assert "Use `ulimit -v unlimited`" in done.stderr

"""What finds the best checkpoint: a number of the validation, in its direction, or a total."""

import pytest

from distgan.config.judge import Judge
from distgan.config.loading import validate
from distgan.core.errors import ConfigError
from distgan.recipes._catalog import resolve_recipe

NUMBERS = {"valid/l1": 0.5, "valid/stft": 2.0, "valid/si_sdr": 10.0}


def settings(recipe, *words):
    module, tree = resolve_recipe(recipe)
    return validate(module.Settings, tree, ["data=d", *words])


@pytest.mark.parametrize(
    ("text", "label", "score"),
    [
        ("l1", "l1", 0.5),
        ("valid/stft", "stft", 2.0),
        ("si_sdr", "-si_sdr", -10.0),
        ("-si_sdr", "-si_sdr", -10.0),
        ("1*l1+0.5*stft", "l1+0.5*stft", 1.5),
        (" l1 + .5 * stft - 1e-2*si_sdr ", "l1+0.5*stft-0.01*si_sdr", 1.4),
    ],
)
def test_a_total_is_low_where_a_checkpoint_is_better(text, label, score):
    judge = Judge.parse(text)
    assert judge.label == label and Judge.parse(label) == judge
    assert judge.score(NUMBERS) == pytest.approx(score) and judge.missing(NUMBERS) == []
    assert judge.missing({}) == [f"valid/{name}" for name in judge.names]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "allowed is a number of the validation, or a weighted total"),
        *(
            (text, "allowed is")
            for text in ("l1+", "l1 stft", "l1*2", "l1++stft", "3", "l1;x", "é")
        ),
        ("0*l1", "the weight of l1 must be above 0 and finite"),
        ("1e400*l1", "the weight of l1 must be above 0 and finite"),
        ("l1+0.1*si_sdr", "si_sdr is better the higher it is, and a total is to be low: its term"),
        ("-2*lsd", r"its term is \+2\*lsd"),
    ],
)
def test_another_text_is_refused(text, said):
    with pytest.raises(ValueError, match=said):
        Judge.parse(text)


@pytest.mark.parametrize(("recipe", "own"), [("waveform", "l1"), ("timbre", "stft")])
def test_recipes_of_pairs_can_be_asked_for_another_judge(recipe, own):
    usual, other = settings(recipe), settings(recipe, "best_by=si_sdr")
    assert (usual.judge.label, other.judge.label) == (own, "-si_sdr")
    assert other.identity("f") != usual.identity("f")
    assert settings(recipe, f"best_by=1*{own}").identity("f") == usual.identity("f")
    with pytest.raises(ConfigError, match=r"no pesq; there are l1, stft, si_sdr, lsd, adversarial"):
        settings(recipe, "best_by=l1+pesq")


def test_a_gan_loss_that_there_is_not_judges_nothing():
    with pytest.raises(ConfigError, match="best_by=adversarial names a GAN loss that there is not"):
        settings("timbre", "best_by=adversarial", "lambda_adversarial=0")

"""The members of a sweep are all checked before the first is submitted."""

import pytest
from sweep_options import options_of

from distgan.core.errors import ConfigError, DistganError
from distgan.launchers.sweeps import members


def test_every_member_is_checked_before_anything_is_submitted(particles, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as error:
        members.plan_sweep(options_of(["sagan", f"data={particles}", "ngf=4,0,oops", "batch=12"]))
    assert (
        "2 of 3 members cannot be trained; nothing was submitted" in str(error.value)
        and "ngf=0" in str(error.value)
        and 'ngf="oops"' in str(error.value)
    )
    with pytest.raises(ConfigError, match="are in the sweep twice"):
        members.plan_sweep(options_of(["sagan", f"data={particles}", "epochs=1,2", "batch=12"]))
    with pytest.raises(DistganError, match="no shards in nowhere"):
        members.plan_sweep(options_of(["sagan", "data=nowhere", "seed=1,2"]))
    with pytest.raises(DistganError, match="batch"):  # 3 processes cannot share 16
        members.plan_sweep(
            options_of(["sagan", f"data={particles}", "seed=1,2", "batch=16"], nodes="3")
        )
    assert not (tmp_path / "runs").exists()


def test_members_may_be_of_several_recipes(particles, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "s.yaml"
    path.write_text(
        f"recipe: sagan\nsettings: {{data: {particles}, epochs: 1, batch: 12}}\ngrid: {{seed: [0,"
        " 1]}\ncases: [{ngf: 4}, {recipe: r3gan, ngf: 4}]\n"
    )
    sweep = members.plan_sweep(options_of([str(path)]))
    assert [(member.run.recipe, member.run.seed) for member in sweep.members] == [
        ("sagan", 0),
        ("sagan", 1),
        ("r3gan", 0),
        ("r3gan", 1),
    ]
    assert [next(iter(member.values.items())) for member in sweep.members] == [
        ("recipe", member.run.recipe) for member in sweep.members
    ]

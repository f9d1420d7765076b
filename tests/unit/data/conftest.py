"""Fixtures of the tests of data."""

import pytest


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return a function: samples, samples per shard -> a data set, made once."""
    import shard_sets

    from distgan.data.dataset import Data

    made = {}

    def folder(n, per_shard):
        if (n, per_shard) not in made:
            made[n, per_shard] = Data(
                str(shard_sets.images(tmp_path_factory.mktemp("set") / "d", n, per_shard))
            )
        return made[n, per_shard]

    return folder

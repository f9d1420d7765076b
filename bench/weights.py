"""Seeded weights in the shapes of pytorch-fid's Inception, for tests and benchmarks.

The published file is not needed to compare two programs on equal weights.
"""

import hashlib
import warnings
from pathlib import Path
from unittest import mock

import torch


def write(path: Path, seed: int = 0) -> str:
    """The file, and its SHA-256.

    Convolutions as by He et al. 2015, batch norm calibrated on seeded images, so that features are
    of order 1.
    """
    from pytorch_fid import inception

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        empty = mock.Mock(return_value={})
        with (
            warnings.catch_warnings(),
            mock.patch.object(inception, "load_state_dict_from_url", empty),
            mock.patch.object(torch.nn.Module, "load_state_dict", lambda self, state: None),
        ):
            warnings.filterwarnings("ignore", module="torchvision")
            net = inception.fid_inception_v3()
        for module in net.modules():
            if isinstance(module, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(module.weight)
            elif isinstance(module, torch.nn.BatchNorm2d):
                module.reset_running_stats()
                module.momentum = None
        state = net.state_dict()
        with mock.patch.object(inception, "fid_inception_v3", lambda: net):
            blocks = inception.InceptionV3([3])
        with torch.no_grad():
            blocks.train()(
                torch.nn.functional.interpolate(torch.rand(16, 3, 8, 8), size=299, mode="bilinear")
            )
        torch.save({name: value.clone() for name, value in state.items()}, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()

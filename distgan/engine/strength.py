"""Control of the strength of adaptive augmentation by what D says of training reals."""

from typing import Any

import torch

from distgan.distributed.ranks import Ranks


class Strength:
    """The strength of the augmentation, and the signs of D since it was last adjusted.

    Signs and images are counted as whole numbers on the device, each rank its own, and summed over
    the ranks when the strength is adjusted or saved, so that no sharing of a batch changes it.
    """

    def __init__(self, ranks: Ranks):
        self._ranks = ranks
        self.value = torch.zeros((), device=ranks.device, dtype=torch.float64)
        self._seen = torch.zeros(2, device=ranks.device, dtype=torch.float64)  # signs, images
        self._update = torch.zeros_like(self._seen)  # the same of the update that goes on

    @torch.no_grad()
    def see(self, scores: torch.Tensor) -> torch.Tensor:
        """Count the signs of `scores`, one for each training real; return their mean."""
        signs = scores.detach().sign().double().reshape(-1)
        self._update[0] += signs.sum()
        self._update[1] += len(signs)
        return signs.mean()

    @torch.no_grad()
    def settle(self, skipped: torch.Tensor) -> None:
        """End an update of D; without effect if it was `skipped`, as its scores may be no
        numbers.
        """
        self._seen += torch.where(skipped > 0, 0.0, self._update)
        self._update.zero_()

    @torch.no_grad()
    def adjust(self, target: float, images: float, limit: float) -> None:
        """Move the strength up where the mean sign is above `target`, else down. Collective.

        It moves by the share of `images` that was seen since, and stays within 0 and `limit`.
        """
        signs, seen = self._ranks.all_reduce_sum(self._seen.clone())
        self.value += (signs - target * seen).sign() * seen / images
        self.value.clamp_(0, limit)
        self._seen.zero_()

    def state(self) -> dict[str, Any]:
        """Return plain numbers, the same for any number of ranks. Collective."""
        signs, seen = self._ranks.all_reduce_sum(self._seen.clone()).tolist()
        return {"strength": float(self.value), "signs": signs, "images": seen}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned, at 0 from nothing; one rank goes on with its sums.

        ValueError where it is no such state.
        """
        if not isinstance(state, dict) or not all(type(n) is float for n in state.values()):
            raise ValueError(f"the strength of ada is {str(state)[:60]}, and no numbers")
        self.value.fill_(state.get("strength", 0.0))
        first = self._ranks.rank == 0
        self._seen.copy_(
            torch.tensor([first * state.get(name, 0.0) for name in ("signs", "images")])
        )
        self._update.zero_()

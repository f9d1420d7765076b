"""The state of a run beside its networks and its position in the data, as checkpoints keep it.

Imports no torch.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from distgan.config.settings import Run
from distgan.core.errors import RunError


@dataclass
class TrainingState:
    """Plain data, identical on all ranks. The training loop owns it and passes it on."""

    run: Run  # the settings with what was changed in flight; not saved, follows from `changed`
    best: dict[str, Any] | None  # step, samples, epoch, score, metric of the best evaluation
    best_scheduled: dict[str, Any] | None  # the same without evaluations made only at an end
    warned: list[str]  # names of the findings that hold
    has_warning: bool  # one of them is a warning
    last_healthy_step: int | None  # of the checkpoint to roll back to
    changed: dict[str, Any]  # settings changed in flight, and their values
    monitor_memory: dict[str, Any]  # of `monitor.decisions.decide`
    end_reason: str | None  # why the run ends before its last step
    nonfinite: dict[str, dict[str, Any]]  # by player: updates; numbers of those skipped lately

    @classmethod
    def from_dict(cls, data: dict[str, Any], run: Run, players: Iterable[str]) -> "TrainingState":
        """Return the state that a checkpoint holds; {} gives that of a run that begins.

        run: the settings without changes; players: names of the recipe's players.
        """
        counts = {name: {"updates": 0, "skipped": []} for name in players}
        state = cls(
            run=run,
            best=data.get("best"),
            best_scheduled=data.get("best_scheduled", data.get("best")),
            warned=data.get("warned", []),
            has_warning=data.get("troubled", False),
            last_healthy_step=data.get("healthy"),
            changed={},
            monitor_memory=data.get("memory", {}),
            end_reason=data.get("ended"),
            nonfinite=counts | data.get("mishaps", {}),
        )
        try:
            state.change(data.get("changed", {}))
        except ValueError as error:
            raise RunError(f"the checkpoint has settings that are not allowed: {error}") from error
        return state

    def to_dict(self) -> dict[str, Any]:
        return {
            "best": self.best,
            "best_scheduled": self.best_scheduled,
            "warned": self.warned,
            "troubled": self.has_warning,
            "healthy": self.last_healthy_step,
            "changed": self.changed,
            "memory": self.monitor_memory,
            "ended": self.end_reason,
            "mishaps": self.nonfinite,
        }

    @property
    def is_healthy(self) -> bool:
        """A checkpoint saved now is one to roll back to: no warning, no update skipped lately."""
        skipped = any(counts["skipped"] for counts in self.nonfinite.values())
        return not self.has_warning and not skipped

    def change(self, changes: dict[str, Any]) -> None:
        """Change settings in flight; pydantic's ValidationError if a value is not allowed."""
        self.changed = self.changed | changes
        if self.changed:
            settings = self.run.model_dump(mode="json") | self.changed
            self.run = type(self.run).model_validate(settings)

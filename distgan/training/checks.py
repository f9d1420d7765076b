"""What is looked at between two steps.

Pictures, validation, score, health. The loop says when there is time for it; `watch` says what it
means.
"""

import json
import math
import time
from typing import Any

import pydantic

from distgan.config.settings import Run
from distgan.core import console
from distgan.core.clock import Clock
from distgan.core.files import write_atomic
from distgan.data.dataset import Data
from distgan.distributed.ranks import Ranks
from distgan.evaluation.image_evaluator import Evaluator
from distgan.monitor.decisions import Decision, decide, evaluate_rules
from distgan.monitor.moves import format_setting
from distgan.recipes._base import apply_settings
from distgan.runs.folder import RunFolder
from distgan.training.journal_writer import Recorder, head


class Checks:
    """`folder` is None on all ranks but the first, `evaluator` where a number of the validation is
    the score.
    """

    def __init__(
        self,
        run: Run,
        recipe: Any,
        data: Data,
        ranks: Ranks,
        folder: RunFolder | None,
        recorder: Recorder,
        evaluator: Evaluator | None,
        last: int,
    ):
        self.best: dict[str, Any] | None = None
        self.warned: list[str] = []  # rules whose findings are in force
        self.troubled = False  # one of them is a warning
        self.healthy: int | None = (
            None  # step of the last checkpoint that was saved while no warning was in force
        )
        self.changed: dict[str, Any] = {}  # settings as they were changed in flight
        self.memory: dict[str, Any] = {}  # of `watch.decide`
        self.ended: str | None = None  # why the run is over before its last step
        self.run = run  # as it was changed in flight
        self._recipe, self._data, self._ranks, self._folder = recipe, data, ranks, folder
        self._recorder, self._evaluator, self._last = recorder, evaluator, last
        self._nowhere = False  # that there is nowhere to go back to was told

    def state(self) -> dict[str, Any]:
        """For a checkpoint: plain data."""
        return {name: getattr(self, name) for name in _STATE}

    def restore(self, state: dict[str, Any]) -> None:
        for name in _STATE:
            setattr(
                self, name, state.get(name, getattr(self, name))
            )  # a checkpoint of version 0.1 has fewer
        if self.changed:
            self._retune()

    def due(self, now: Clock) -> tuple[bool, bool, bool]:
        """(show, validate, evaluate) at this step."""
        run, ends = self.run, now.step in (0, self._last)
        return (
            ends or now.due(run.sample_every),
            ends or now.due(run.validate_every),
            run.scored is not None and (ends or now.due_in(run.scored.schedule)),
        )

    def check(self, now: Clock) -> tuple[bool, Decision]:
        """Whatever is due at this step, after the waiting numbers were written.

        Is the score the best so far, and what to do about trouble. Collective.
        """
        show, validate, evaluate = self.due(now)
        began = time.perf_counter()
        result = (
            self._ranks.on_rank_zero(lambda: self._on_rank_0(now, show, validate))
            if show or validate
            else None
        )
        if evaluate:
            result = self._evaluator(self._recipe.sample)
        improved = result is not None and self._judge(now, result)
        self.warned, self.troubled, decision = self._ranks.on_rank_zero(lambda: self._watch(now))
        if (
            decision.action == "rollback" and self.healthy is None
        ):  # there was trouble from the first number on
            decision = Decision(memory=self.memory)
            if self._folder and not self._nowhere:
                console.say(
                    "warning: watch.on_trouble=rollback, but no checkpoint is of a healthy moment:"
                    " there was trouble from the start, and there is nowhere to go back to"
                )
            self._nowhere = True
        self.memory = decision.memory
        if decision.action == "adapt" and (refused := self._refused(decision)):
            if self._folder:
                console.say(
                    f"warning: adapt because of {decision.rule} would set {refused}: left as it is;"
                    " a `limit` keeps a move in its range"
                )
        elif decision.action == "adapt":
            self.change(now, decision)
        self._recorder.pause(time.perf_counter() - began)  # checks do not count as training time
        return improved, decision

    def _on_rank_0(self, now: Clock, show: bool, validate: bool) -> dict[str, Any] | None:
        """Returns the score, where a number of the validation is the score."""
        if show:
            self._folder.write_or_warn(
                lambda: self._recipe.show(
                    self._data, self._folder.path / "samples" / f"{now.step:08d}.png"
                )
            )
        if not validate:
            return None
        numbers = self._recipe.validate(self._data)
        self._recorder.write([head(now) | numbers])
        self._folder.event("validation", **head(now), **numbers)
        key = self.run.judged_by
        return (
            {
                "metric": key.rpartition("/")[2],
                "score": numbers[key],
                "samples": len(self._data.validation),
            }
            if key
            else None
        )

    def _judge(self, now: Clock, result: dict[str, Any]) -> bool:
        """Keep the score if it is the best so far, and write it down. The same on all ranks."""
        improved = math.isfinite(result["score"]) and (
            self.best is None or result["score"] < self.best["score"]
        )
        if improved:
            self.best = head(now) | {"score": result["score"], "metric": result["metric"]}
        if self._folder:
            beside = (
                {"valid/nearest": result["nearest"]} if result.get("nearest") is not None else {}
            )
            self._recorder.write(
                [head(now) | {f"eval/{result['metric']}": result["score"]} | beside]
            )
            self._folder.write_or_warn(
                lambda: write_atomic(
                    self._folder.path / "eval" / f"{now.step:08d}.json",
                    json.dumps(head(now) | result, indent=1),
                )
            )
            self._folder.event(
                "best" if improved else "evaluation",
                **head(now),
                metric=result["metric"],
                score=result["score"],
            )
            console.say(
                f"epoch {now.epoch:.1f}  {result['metric']} {result['score']:.4g}"
                + ("  best so far" if improved else "")
            )
        return improved

    def _watch(self, now: Clock) -> tuple[list[str], bool, Decision]:
        """Rank 0: say what `watch` found, once for as long as it stays, and decide what to do.

        Returns the rules, whether one warns, the decision.
        """
        settings, values = self.run.watch, self.run.model_dump(mode="json")
        findings = evaluate_rules(
            sorted(self._recorder.seen, key=lambda row: row["step"]), settings, values
        )
        for finding in findings:
            if finding.name not in self.warned:
                self._folder.event(
                    "warning",
                    step=now.step,
                    epoch=now.epoch,
                    rule=finding.rule,
                    level=finding.level,
                    message=finding.message,
                    advice=finding.advice,
                )
                console.say(f"{finding.level}: {finding.message}. Moves: {finding.advice}")
        troubled = any(finding.level == "warning" for finding in findings)
        return (
            [finding.name for finding in findings],
            troubled,
            decide(findings, settings, values, self.memory, now.epoch),
        )

    def over(self, now: Clock, decision: Decision) -> str | None:
        """Why the run ends before its last step.

        Kept in its last checkpoint. The same on all ranks.
        """
        if now.step == self._last:
            return None  # the end that was asked for; with more epochs the run goes on
        if decision.action == "stop":
            self.ended = f"watch.on_trouble=stop, because of {decision.rule}"
        elif (
            self.run.patience and self.best and now.epoch - self.best["epoch"] >= self.run.patience
        ):
            self.ended = f"no better {self.best['metric']} for {self.run.patience:g} epochs"
        return self.ended

    def _refused(self, decision: Decision) -> str | None:
        """What of a decision's changes no run may have. The same on all ranks."""
        try:
            type(self.run).model_validate(
                self.run.model_dump(mode="json") | self.changed | decision.changes
            )
        except pydantic.ValidationError as error:
            return "; ".join(
                f"{'.'.join(map(str, one['loc']))} to {format_setting(one['input'])} ({one['msg']})"
                for one in error.errors()
            )
        return None

    def change(self, now: Clock, decision: Decision, **facts: Any) -> None:
        """Go on with other settings. The same on all ranks. `facts` go into the event."""
        before = {name: getattr(self.run, name) for name in decision.changes}
        self.changed = self.changed | decision.changes
        self._retune()
        if self._folder:
            moves = ", ".join(
                f"{name} {format_setting(before[name])}→{format_setting(value)}"
                for name, value in decision.changes.items()
            )
            self._recorder.write(
                [head(now) | {f"adapt/{name}": value for name, value in decision.changes.items()}]
            )
            self._folder.event(
                decision.action,
                step=now.step,
                epoch=now.epoch,
                rule=decision.rule,
                changes=decision.changes,
                moves=moves,
                **facts,
            )
            console.say(
                f"{decision.action} because of {decision.rule}: {moves or 'nothing left to change'}"
            )

    def _retune(self) -> None:
        self.run = type(self.run).model_validate(self.run.model_dump(mode="json") | self.changed)
        apply_settings(self._recipe, self.run)


_STATE = ("best", "warned", "troubled", "healthy", "changed", "memory", "ended")

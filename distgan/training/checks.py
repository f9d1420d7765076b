"""The checks between two steps: samples, validation, evaluation, and the monitor's decision."""

import contextlib
import json
import math
import time
from typing import Any, NamedTuple

import pydantic

from distgan.core import console
from distgan.core.clock import Clock
from distgan.core.errors import DataError, RunError
from distgan.core.files import write_atomic
from distgan.data.dataset import Data
from distgan.distributed.ranks import Ranks
from distgan.evaluation.image_evaluator import Evaluator
from distgan.monitor.decisions import Decision, decide, evaluate_rules
from distgan.monitor.journal import UNSCHEDULED, floor_row
from distgan.monitor.moves import format_setting
from distgan.monitor.success.verdict import judge
from distgan.recipes._base import apply_settings, show, show_reals, validate
from distgan.runs import records
from distgan.runs.folder import REALS, RunFolder
from distgan.runs.training_state import TrainingState
from distgan.training.journal_writer import JournalWriter, head


class Due(NamedTuple):
    """The checks of one step."""

    show: bool
    validate: bool
    evaluate: bool


class Checks:
    """Run what is due at a step, and update the state with the results.

    evaluator: None if a number of the validation is the score, or nothing is.
    """

    def __init__(
        self,
        recipe: Any,  # a `Recipe`, and one that `DrawsSamples` where there is an evaluator
        data: Data,
        ranks: Ranks,
        folder: RunFolder,
        writer: JournalWriter,
        evaluator: Evaluator | None,
        last: int,
    ):
        self._recipe, self._data, self._ranks, self._folder = recipe, data, ranks, folder
        self._writer, self._evaluator, self._last = writer, evaluator, last
        self._warned_no_healthy_checkpoint = False
        self._verdict: str | None = None  # as of the last check; None: not judged yet

    def scheduled(self, now: Clock, state: TrainingState) -> Due:
        """Return what the run's schedules ask for at this step, whatever `epochs` is."""
        run, begins = state.run, now.step == 0
        return Due(
            begins or now.due(run.sample_every),
            begins or now.due(run.validate_every),
            run.scored is not None and (begins or now.due_in(run.scored.schedule)),
        )

    def due(self, now: Clock, state: TrainingState) -> Due:
        """Return what is due at this step: what is scheduled, and all of it at the end."""
        if now.step == self._last:
            return Due(True, True, state.run.scored is not None)
        return self.scheduled(now, state)

    def check(self, now: Clock, state: TrainingState) -> tuple[bool, Decision]:
        """Run what is due. Return (is the score the best so far, what to do about warnings).

        The monitor judges scheduled steps alone. What is run only because the run ends here is
        marked `unscheduled`: a longer run has no such rows, and must decide the same. Needs a
        journal without waiting rows. Collective.
        """
        due, scheduled = self.due(now, state), self.scheduled(now, state)
        began = time.perf_counter()
        result = None
        if due.show or due.validate:
            mark = {} if scheduled.validate else UNSCHEDULED
            result = self._ranks.on_rank_zero(
                lambda: self._show_and_validate(now, state, due, mark)
            )
        if due.evaluate and self._evaluator:
            result = self._evaluator(self._recipe.sample)
        mark = {} if scheduled.evaluate or not due.evaluate and scheduled.validate else UNSCHEDULED
        improved = result is not None and self._record_score(now, state, result, mark)
        if not any(scheduled):
            self._judge(state)
            self._writer.exclude_time(time.perf_counter() - began)
            return improved, Decision(memory=state.monitor_memory)
        state.warned, state.has_warning, decision = self._ranks.on_rank_zero(
            lambda: self._decide(now, state)
        )
        if decision.action == "rollback" and state.last_healthy_step is None:
            decision = Decision(memory=state.monitor_memory)
            if not self._warned_no_healthy_checkpoint:
                console.say(
                    f"warning: watch.on_trouble={state.run.watch.on_trouble}, but every checkpoint"
                    " was saved during a warning: there is nowhere to go back to, and the run goes"
                    " on"
                )
            self._warned_no_healthy_checkpoint = True
        if decision.action == "rollback" and not self._is_allowed(state, decision):
            gone_back = {"rollbacks": state.monitor_memory.get("rollbacks", 0)}
            decision = Decision(memory=decision.memory | gone_back)
        state.monitor_memory = decision.memory
        self._judge(state)  # by the settings of now: an `adapt` counts from the next check on
        if decision.action == "adapt" and self._is_allowed(state, decision):
            self.apply(now, state, decision)
        self._writer.exclude_time(time.perf_counter() - began)
        return improved, decision

    def _show_and_validate(
        self, now: Clock, state: TrainingState, due: Due, mark: dict[str, bool]
    ) -> dict[str, Any] | None:
        """Save samples, validate. Return the score if a number of the validation is the score."""
        if due.show:
            path = self._folder.path / "samples" / f"{now.step:08d}.png"
            self._folder.write_optional("samples", lambda: show(self._recipe, self._data, path))
            self._show_reals()
        if not due.validate:
            return None
        numbers = validate(self._recipe, self._data)
        self._writer.write([head(now) | numbers | mark])
        self._folder.event("validation", **head(now), **numbers)
        run = state.run
        if not (judge := run.judge):
            return None
        if missing := judge.missing(numbers):
            if run.validated:  # it comes later, with the GAN loss
                return None
            setting = "best_by" if getattr(run, "best_by", None) else "judged_by"
            raise RunError(
                f"{setting}: {', '.join(missing)} finds the best checkpoint of {run.recipe}, but"
                f" its method `validate` returned {', '.join(numbers) or 'nothing'}"
            )
        return {
            "metric": judge.label,
            "score": judge.score(numbers),
            "samples": len(self._data.validation),
        }

    def _show_reals(self) -> None:
        """Write the picture of real images once. Damaged ones are left to the training to name."""
        path = self._folder.path / REALS
        if not path.exists():
            with contextlib.suppress(DataError):
                self._folder.write_optional(
                    "real images", lambda: show_reals(self._recipe, self._data, path)
                )

    def _record_score(
        self, now: Clock, state: TrainingState, result: dict[str, Any], mark: dict[str, bool]
    ) -> bool:
        """Write an evaluation down, and return True if its score is the best so far."""
        score, metric = result["score"], result["metric"]
        improved = math.isfinite(score) and (state.best is None or score < state.best["score"])
        if improved:
            state.best = head(now) | {"score": score, "metric": metric} | _floor(result)
            if not mark:
                state.best_scheduled = state.best
        row = head(now) | {f"eval/{metric}": score} | floor_row(result) | mark
        if result.get("nearest") is not None:
            row["valid/nearest"] = result["nearest"]
        self._writer.write([row])
        self._folder.write_optional(
            "files of scores",
            lambda: write_atomic(
                self._folder.path / "eval" / f"{now.step:08d}.json",
                json.dumps(head(now) | result, indent=1),
            ),
        )
        name = "best" if improved else "evaluation"
        self._folder.event(name, **head(now), metric=metric, score=score)
        note = "  best so far" if improved else ""
        console.say(f"epoch {now.epoch:.1f}  {metric} {score:.4g}{note}")
        return improved

    def _decide(self, now: Clock, state: TrainingState) -> tuple[list[str], bool, Decision]:
        """Rank 0: evaluate the rules, report each new finding once, and decide what to do.

        Return (names of the findings, is one of them a warning, the decision).
        """
        watch, values = state.run.watch, state.run.model_dump(mode="json")
        rows = sorted(self._writer.history, key=lambda row: row["step"])
        findings = evaluate_rules(rows, watch, values)
        for finding in findings:
            if finding.name not in state.warned:
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
        return (
            [finding.name for finding in findings],
            any(finding.level == "warning" for finding in findings),
            decide(findings, watch, values, state.monitor_memory, now.epoch),
        )

    def summary(self, state: TrainingState) -> dict[str, Any]:
        """Return the best score, and the verdict of `distgan report` as of the last check, for
        status.json. {} on other ranks than 0.
        """
        if not self._ranks.is_main:
            return {}
        if self._verdict is None:
            self._judge(state)
        return {"best": state.best, "verdict": self._verdict}

    def forget(self) -> None:
        """Judge anew: the run went back behind its last check."""
        self._verdict = None

    def _judge(self, state: TrainingState) -> None:
        """Rank 0: judge the run as of its last check. What others wrote into its files may make
        that impossible, which stops no run.
        """
        if not self._ranks.is_main:
            return
        try:
            rows = sorted(self._writer.history, key=lambda row: row["step"])
            warnings = records.warnings(records.read_events(self._folder.path / "events.jsonl"))
            values = state.run.model_dump(mode="json")
            self._verdict = judge(rows, values, state.run.watch, warnings).sentence
        except (RunError, TypeError, ValueError, KeyError) as error:
            self._verdict = f"not judged: {error}"

    def end_reason(self, now: Clock, state: TrainingState, decision: Decision) -> str | None:
        """Return why a run of any length ends at this step; None if it goes on."""
        if decision.action == "stop":
            return f"watch.on_trouble=stop, because of {decision.rule}"
        patience, best = state.run.patience, state.best_scheduled
        if patience and best and now.epoch - best["epoch"] >= patience:
            return f"no better {best['metric']} for {patience:g} epochs"
        return None

    def _is_allowed(self, state: TrainingState, decision: Decision) -> bool:
        """Return True if the decision's changes give valid settings, else warn."""
        settings = state.run.model_dump(mode="json") | state.changed | decision.changes
        try:
            type(state.run).model_validate(settings)
        except pydantic.ValidationError as error:
            faults = "; ".join(
                f"{'.'.join(map(str, fault['loc']))} to {format_setting(fault['input'])}"
                f" ({fault['msg']})"
                for fault in error.errors()
            )
            console.say(
                f"warning: {decision.action} because of {decision.rule} would set {faults}. The"
                " settings are unchanged; give the move a `limit`"
            )
            return False
        return True

    def apply(self, now: Clock, state: TrainingState, decision: Decision, **facts: Any) -> None:
        """Change the settings as decided, and record it; `facts` go into the event."""
        before = {name: getattr(state.run, name) for name in decision.changes}
        state.change(decision.changes)
        apply_settings(self._recipe, state.run)
        moves = ", ".join(
            f"{name} {format_setting(before[name])}→{format_setting(value)}"
            for name, value in decision.changes.items()
        )
        changes = {f"adapt/{name}": value for name, value in decision.changes.items()}
        self._writer.write([head(now) | changes])
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


def _floor(result: dict[str, Any]) -> dict[str, Any]:
    """Return {"floor": the score of k real samples, of k generated ones, k}; {} without one."""
    if not (floor := result.get("floor")):
        return {}
    scores = {side: floor[side]["score"] for side in ("real", "generated")}
    return {"floor": scores | {"samples": floor["samples"]}}

"""The training loop: batches, step, journal, checks, checkpoints. The loop decides when, the recipe
how; the monitor judges the numbers.
"""

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from distgan.config.batch_layout import BatchLayout
from distgan.config.settings import Run
from distgan.core import console, watchdog
from distgan.core.clock import Clock
from distgan.core.errors import RunError
from distgan.core.files import make_folder, remove, rename
from distgan.data.dataset import Data
from distgan.data.loader import MicroBatch, Stream, require_due
from distgan.distributed.ranks import Ranks
from distgan.evaluation.image_evaluator import Evaluator
from distgan.monitor.decisions import Decision
from distgan.monitor.journal import read_journal
from distgan.recipes._base import Recipe, WritesResults, apply_settings
from distgan.runs import checkpoints
from distgan.runs.folder import RunFolder
from distgan.runs.locate import find_start
from distgan.runs.training_state import TrainingState
from distgan.training import saving
from distgan.training.checks import Checks
from distgan.training.journal_writer import JournalWriter
from distgan.training.nonfinite import RESPOND_STEPS, NonFiniteMonitor
from distgan.training.stop_requests import StopRequests

HEARTBEAT_S = 5.0  # the least time between two writes of status.json, except at checkpoints
STOPPED = 75  # exit code of a run to be continued by the same line (sysexits.h, EX_TEMPFAIL)


class Loop:
    """Train one run in this process, one of its ranks. It owns the run's state."""

    def __init__(
        self,
        run: Run,
        recipe: Recipe,
        data: Data,
        layout: BatchLayout,
        ranks: Ranks,
        folder: RunFolder,
        evaluator: Evaluator | None,
    ):
        self.run, self.recipe, self.data, self.layout = run, recipe, data, layout
        self.ranks, self.folder = ranks, folder
        self.clock = Clock(layout.batch * run.batches_per_step, len(data.train))
        self.last = self.clock.steps(run.epochs)
        self.state = TrainingState.from_dict({}, run, recipe.players)
        self.writer = JournalWriter(ranks, folder)
        self.checks = Checks(recipe, data, ranks, folder, self.writer, evaluator, self.last)
        self.nonfinite = NonFiniteMonitor(
            run, recipe.players, data, layout, ranks, folder, self.clock.per_step
        )
        self.requests = StopRequests(ranks, folder, run.machine.time_limit_s)
        self._heartbeat = time.perf_counter()
        # Rank 0: what the previous attempt lost, until this one has taken a step.
        self._interrupted: dict[str, Any] | None = None

    # ---- the loop
    def train(self) -> Literal["done", "stopped"]:
        """Train to the end, or until asked to stop. Return the state: `done` or `stopped`."""
        with self.requests.listening():
            now, stopped = self._train()
            if not stopped:
                self._results()
            self.requests.leaving()
            if not stopped and self.ranks.is_main:
                self._finish(now)
        return "stopped" if stopped else "done"

    def _train(self) -> tuple[Clock, bool]:
        """Return where training ended, and if a request has stopped it."""
        now = self._begin()
        stream, losses, fetched = self._stream(now), None, ""
        with console.bar("training", self.last, "steps", start=now.step) as bar:
            # A run that was killed after its last save has an end_reason.
            while now.step < self.last and not self.state.end_reason:
                with self.writer.working():
                    batches = [next(stream) for _ in range(self.run.batches_per_step)]
                    require_due(batches, self.layout, self.ranks.rank, now)
                    requested = self.requests.begin()  # reduced while the step is taken
                    log = self.recipe.step(batches, now)
                now = now.at(now.step + 1)
                show = now.step % self.run.machine.journal_every == 0 or now.step == self.last
                self.writer.add(now, log, show)
                if now.step % self.run.machine.flush_steps == 0:
                    losses, fetched = self.flush(now), f"  at step {now.step}:"
                elif now.step % RESPOND_STEPS == 0:
                    self._inspect(now)
                speed = f"{bar.rate * self.clock.per_step:.4g} {self.run.kind.replace('_', ' ')}s/s"
                bar.advance(1, losses, f"epoch {now.epoch:.1f}  {speed}{fetched}")
                stop, save = requested()
                self._report_resumed()
                improved, decision = self.check(now)
                if decision.action == "rollback":
                    now = self._roll_back(now, decision)
                    stream = self._stream(now)
                    bar.back(now.step)
                    continue
                self.state.end_reason = self.checks.end_reason(now, self.state, decision)
                last = now.step == self.last or self.state.end_reason is not None
                due = saving.is_due(self.run.machine, now) or self._may_roll_back_to(now)
                if improved or stop or save or last or due:
                    self.save(now, must=stop or last)
                if stop or last:
                    return now, not last
        return now, False

    def _begin(self) -> Clock:
        """Load the newest checkpoint; without one, check the networks before the first step."""
        if resumed := self.resume():
            self._status(resumed)
            self.ranks.on_rank_zero(lambda: saving.record_best(self.folder, self.state.best))
            return resumed
        now = self.clock
        self.check(now)
        # There is always a healthy checkpoint to roll back to; a grown network may be best as it
        # begins.
        if self.run.watch.goes_back or self.run.starts_from:
            self.save(now)
        return now

    def _finish(self, now: Clock) -> None:
        """Rank 0: write DONE, which proves that the last checkpoint is intact."""
        early = now.step < self.last
        reason = self.state.end_reason if early else None
        if early:
            console.say(f"finished early: {reason}")
        checkpoints.verify(self.folder.path / "checkpoints" / f"{now.step:08d}")
        self.folder.finish(now.step, now.epoch, early)
        self.folder.event("done", step=now.step, epoch=now.epoch, early=reason)

    def _stream(self, now: Clock) -> Iterator[list[MicroBatch]]:
        stream = Stream(
            self.data,
            self.run.seed,
            self.layout,
            self.ranks.rank,
            self.ranks.device,
            start=now.samples,
            workers=self.run.machine.workers,
            resident_bytes=self.run.machine.resident_mb << 20,
            window=self.run.shuffle_window or 0,
            crop=self.run.crop,
        )
        self.ranks.on_all_ranks(stream.require_room)
        return iter(stream)

    # ---- checkpoints
    def resume(self) -> Clock | None:
        """Load the newest intact checkpoint, chosen by rank 0 for all. Return its position; None
        without one.
        """

        def choose() -> tuple[Path, dict[str, Any]] | None:
            folder = self.folder.path / "checkpoints"
            checkpoints.recover(folder)
            newest = checkpoints.newest(folder)
            if newest:
                self._require_own(*newest)
            heartbeat = self.folder.last_heartbeat()
            lost = self._rewind(newest[1] if newest else {"step": -1})
            if newest:
                self._interrupted = {"steps_lost": lost, "heartbeat": heartbeat}
            name, step = ("resume", newest[1]["step"]) if newest else ("start", 0)
            self.folder.event(name, step=step, attempt=self.folder.attempt)
            return newest

        newest = self.ranks.on_rank_zero(choose)
        if newest is None:
            self._start_from()
            self.ranks.on_rank_zero(lambda: self.folder.accept_code(0, 0.0))
            return None
        path, saved = newest
        now = self.clock.at(saved["step"])
        checkpoints.load(path, self.recipe.players)
        self._restore(saved)
        # Now that the checkpoint fits the networks of the code.
        self.ranks.on_rank_zero(lambda: self.folder.accept_code(now.step, now.epoch))
        if now.step < self.last:  # a longer run has no evaluation where a shorter one ended
            self.state.best = self.state.best_scheduled
        where = f"continuing from step {now.step} of {self.last}"
        if now.step >= self.last:
            where = f"already at step {now.step}; {self.last} requested"
        console.say(f"{where}, epoch {now.epoch:.1f}")
        return now

    def _require_own(self, path: Path, saved: dict[str, Any]) -> None:
        """Rank 0: raise RunError, before anything is changed, unless this run wrote the
        checkpoint.
        """
        checkpoints.require_run(path, saved, self.folder.identity)
        for name, value in self._stream_state(self.clock.at(saved["step"])).items():
            if saved[name] != value:
                raise RunError(
                    f"checkpoint {path} was written at {name} {saved[name]}; with these settings"
                    f" and data it would be {value}"
                )

    def _rewind(self, saved: dict[str, Any]) -> int:
        """Rank 0: discard the checkpoints and journal rows after a checkpoint. Return how many
        steps are lost.
        """
        step = saved["step"]
        for name in ("checkpoints", checkpoints.ARCHIVE):
            checkpoints.discard_after(self.folder.path / name, step)
        lost = self.folder.rewind(step, saved.get("rows_of_step"))
        journal = read_journal(self.folder.path / "journal.jsonl")
        self.writer.continue_from(journal, saved.get("rows", []))
        return lost

    def _restore(self, saved: dict[str, Any]) -> None:
        self.state = TrainingState.from_dict(saved, self.run, self.recipe.players)
        if self.state.changed:
            apply_settings(self.recipe, self.state.run)
        self.nonfinite.reset()

    def _start_from(self) -> None:
        """Start from the networks of another run, if one is named. The same on all ranks."""
        if self.run.starts_from:
            from distgan.engine.widen import EVENTS, widen

            setting, source = self.run.starts_from[0], find_start(*self.run.starts_from)
            event, shapes = EVENTS[setting], widen(source, self.recipe.players, setting)
            self.folder.event(event, source=str(source), shapes=shapes)
            console.say("\n".join([f"{event} from {source}:", *(f"  {text}" for text in shapes)]))

    def _roll_back(self, now: Clock, decision: Decision) -> Clock:
        """Load the last healthy checkpoint, and change the settings as decided.

        Save it anew, so that a restart continues from there with these settings. Collective.
        """

        def choose() -> tuple[Path, dict[str, Any]]:
            folder = self.folder.path / "checkpoints"
            path = checkpoints.require_written(folder, self.state.last_healthy_step or 0)
            saved = checkpoints.verify(path)
            self._require_own(path, saved)
            self._rewind(saved)
            return path, saved

        path, saved = self.ranks.on_rank_zero(choose)
        came_from, now = now.step, self.clock.at(saved["step"])
        # All ranks have read it before it is saved anew.
        self.ranks.on_all_ranks(lambda: checkpoints.load(path, self.recipe.players))
        self._restore(saved | {"changed": self.state.changed, "memory": decision.memory})
        self.checks.forget()
        self.checks.apply(now, self.state, decision, from_step=came_from, to_step=now.step)
        self.save(now)
        return now

    def save(self, now: Clock, must: bool = True) -> None:
        """Write a checkpoint. Collective.

        Without `must`, a checkpoint that cannot be written is only a warning if
        machine.on_full_disk=warn.
        """
        self.flush(now)
        sums = checkpoints.sums(self.recipe.players)
        self.ranks.require_equal_state(f"after step {now.step}", sums)
        began, state = time.perf_counter(), self.state
        if state.is_healthy and self._may_roll_back_to(now):
            state = dataclasses.replace(state, last_healthy_step=now.step)
        saved = {**state.to_dict(), **self.writer.at_checkpoint(now.step)}
        players = checkpoints.held(self.recipe.players)

        def write() -> None:
            here = {**self._stream_state(now), "identity": self.folder.identity}
            saving.write(self.folder, self.run.machine, now, players, here, saved)
            seconds = round(time.perf_counter() - began, 3)
            self.folder.event("checkpoint", step=now.step, seconds=seconds)
            self._status(now)

        def try_to_write() -> None:
            if must:
                write()
            else:
                self.folder.write_or_warn(write)

        self.ranks.on_rank_zero(try_to_write)
        self.state = state  # also without room: where a rollback goes does not depend on the disk
        self.writer.add_save_time(time.perf_counter() - began)
        self.requests.saved(time.perf_counter() - began)
        watchdog.beat()

    def _may_roll_back_to(self, now: Clock) -> bool:
        """Return True on the grid of rollback targets, which is a function of the settings."""
        return now.step == 0 or now.due(self.run.rollback_every)

    def _stream_state(self, now: Clock) -> dict[str, Any]:
        data = self.data.fingerprint_for(self.run)  # all that decides which samples come next
        return {"samples": now.samples, "seed": self.run.seed, "data": data}

    # ---- numbers
    def flush(self, now: Clock) -> dict[str, float] | None:
        """Write the waiting numbers. Return the losses to show; None if none waited. Collective."""
        losses = self.writer.flush()
        self._inspect(now)
        if losses and time.perf_counter() - self._heartbeat > HEARTBEAT_S:
            self._status(now)
        return losses

    def _inspect(self, now: Clock) -> None:
        try:
            self.nonfinite.inspect(now, self.state)
        except RunError:
            self.writer.flush()  # the run ends here: its last rows say how
            raise

    def check(self, now: Clock) -> tuple[bool, Decision]:
        """Run the checks that are due. Return (is the score the best so far, the monitor's
        decision). Collective.
        """
        if not any(self.checks.due(now, self.state)) and not self.nonfinite.pending:
            return False, Decision()
        self.flush(now)
        if self.nonfinite.pending:
            return False, self.nonfinite.pending
        result = self.checks.check(now, self.state)
        self.requests.checked()
        return result

    def _status(self, now: Clock) -> None:
        self._heartbeat = time.perf_counter()
        self.folder.status(
            state="running",
            cause=None,
            step=now.step,
            samples=now.samples,
            epoch=now.epoch,
            **self.checks.summary(self.state),
        )

    def _report_resumed(self) -> None:
        """After the first step of an attempt that resumes, report what the interruption cost."""
        if self._interrupted:
            lost, heartbeat = self._interrupted["steps_lost"], self._interrupted["heartbeat"]
            # Two attempts have no other clock in common than that of the wall, which may be set.
            downtime = max(time.time() - (heartbeat or time.time()), 0.0)
            self.folder.event("training_again", steps_lost=lost, seconds=round(downtime, 1))
            console.say(f"resumed: {lost} steps lost, {downtime:.0f} s downtime")
            self._interrupted = None

    # ---- results
    def _results(self) -> None:
        """Have the recipe make RUN/results from the best checkpoint, whole or not at all.
        Collective.
        """
        if not isinstance(self.recipe, WritesResults):
            return

        def begin() -> tuple[str, str | None]:
            temporary = self.folder.path / ".results"
            remove(temporary)
            make_folder(temporary)
            best = self._best_checkpoint()
            return str(temporary), str(best) if best else None

        temporary, best = self.ranks.on_rank_zero(begin)
        if best:
            checkpoints.load(Path(best), self.recipe.players)
        self.recipe.results(self.data, self.ranks, Path(temporary))

        def end() -> None:
            final = self.folder.path / "results"
            remove(final)
            if not any(Path(temporary).iterdir()):  # the settings ask for none
                return Path(temporary).rmdir()
            rename(Path(temporary), final.name)
            console.say(f"results in {final}")
            files = sum(1 for path in final.rglob("*") if path.is_file())
            step = int(Path(best).name) if best else self.last
            self.folder.event("results", files=files, step=step)

        self.ranks.on_rank_zero(end)

    def _best_checkpoint(self) -> Path | None:
        """Return the checkpoint of the best score; None, with a note, if it is not intact."""
        reason = "no score was finite"
        if self.state.best:
            best = self.folder.path / "checkpoints" / f"{self.state.best['step']:08d}"
            try:
                self._require_own(best, checkpoints.verify(best))
                return best
            except RunError as error:
                reason = str(error)
                if not best.is_dir():
                    reason = f"step {int(best.name)} has the best score, but no checkpoint"
        console.say(f"note: results are made from the last step: {reason}")
        return None

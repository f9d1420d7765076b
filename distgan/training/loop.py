"""The one training loop: batches, step, journal, checks, save. It knows when; the recipe knows how;
`watch` knows what it means.
"""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distgan.config.batch_layout import BatchLayout
from distgan.config.settings import Run
from distgan.core import console, watchdog
from distgan.core.clock import Clock
from distgan.core.errors import RunError
from distgan.data.dataset import Data
from distgan.data.loader import MicroBatch, Stream, require_due
from distgan.distributed.ranks import Ranks
from distgan.evaluation.image_evaluator import Evaluator
from distgan.monitor.decisions import Decision
from distgan.monitor.journal import read_journal
from distgan.recipes._base import WritesResults
from distgan.runs import checkpoints
from distgan.runs.folder import RunFolder
from distgan.runs.locate import find_grow_source
from distgan.training.checks import Checks
from distgan.training.journal_writer import Recorder
from distgan.training.nonfinite import Mishaps
from distgan.training.stop_requests import Requests

HEARTBEAT_S = 5.0  # at the most this often is status.json written between checkpoints
# exit code of a run that saved and left on request: run the same line again (sysexits.h
# EX_TEMPFAIL)
STOPPED = 75


class Loop:
    """What one process holds while it trains. `folder` is None on all ranks but the first."""

    def __init__(
        self,
        run: Run,
        recipe: Any,
        data: Data,
        layout: BatchLayout,
        ranks: Ranks,
        folder: RunFolder | None,
        evaluator: Evaluator | None,
    ):
        self.run, self.recipe, self.data, self.layout, self.ranks, self.folder = (
            run,
            recipe,
            data,
            layout,
            ranks,
            folder,
        )
        self.clock = Clock(layout.batch * recipe.batches_per_step, len(data.train))
        self.last = self.clock.steps(run.epochs)
        self.recorder = Recorder(ranks, folder, run.machine.journal_every)
        self.checks = Checks(run, recipe, data, ranks, folder, self.recorder, evaluator, self.last)
        self.mishaps = Mishaps(
            run, recipe.players, data, layout, ranks, folder, self.checks, self.clock.per_step
        )
        self.requests = Requests(ranks, folder.path if folder else None, run.machine.time_limit_s)
        self.told = time.perf_counter()
        self.again: dict[str, Any] | None = (
            None  # rank 0: what the attempt before lost, until this one has taken a step
        )

    # ---- the loop
    def train(self) -> str:
        """Train to the end, or until asked to stop. Returns the state: `done` or `stopped`."""
        with self.requests.listening():
            return self._train()

    def _train(self) -> str:
        now = self.resume()
        if self.folder and now.step:
            self._status(now)
        if now.step == 0:
            self.check(now)
            if self.run.watch.on_trouble == "rollback" or self.run.grow:
                self.save(
                    now
                    # there is always a healthy one to go back to; a grown network may be best as it
                    # begins
                )
        stream = self._stream(now)
        state, shown = "done", None
        with console.bar("training", self.last, "steps", start=now.step) as bar:
            while (
                now.step < self.last and not self.checks.ended
            ):  # which a kill after the last save must not undo
                with self.recorder.working():
                    batches = [next(stream) for _ in range(self.recipe.batches_per_step)]
                    require_due(batches, self.layout, self.ranks.rank, now)
                    asked = self.requests.begin()  # the answer comes in while the step is taken
                    log = self.recipe.step(batches, now)
                now = now.at(now.step + 1)
                if now.step % self.run.machine.journal_every == 0 or now.step == self.last:
                    self.recorder.add(now, log)
                if now.step % self.run.machine.flush_steps == 0:
                    shown = self.flush(now)
                bar.advance(
                    1,
                    shown,
                    f"epoch {now.epoch:.1f}  {bar.rate * self.clock.per_step:.4g}"
                    f" {self.run.kind}s/s",
                )
                stop, save = asked()
                self._tell_lost()
                improved, decision = self.check(now)
                if decision.action == "rollback":
                    now = self._go_back(now, decision)
                    stream = self._stream(now)
                    bar.back(now.step)
                    continue
                early = self.checks.over(now, decision)
                if (
                    improved
                    or stop
                    or save
                    or early
                    or now.step == self.last
                    or now.due(self.run.machine.checkpoint_every)
                ):
                    self.save(now, must=bool(stop or early or now.step == self.last))
                if stop or early:
                    state = "done" if early or now.step == self.last else "stopped"
                    break
        if state == "done":
            self._results()
        self.requests.leaving()
        if self.folder and state == "done":
            early = now.step < self.last
            if early:
                console.say(f"finished early: {self.checks.ended}")
            checkpoints.verify(
                self.folder.path / "checkpoints" / f"{now.step:08d}"
            )  # DONE is the proof of success
            self.folder.finish(now.step, now.epoch, early)
            self.folder.event(
                "done", step=now.step, epoch=now.epoch, early=self.checks.ended if early else None
            )
        return state

    def _stream(self, now: Clock) -> Iterator[list[MicroBatch]]:
        return iter(
            Stream(
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
        )

    # ---- where a run stands
    def resume(self) -> Clock:
        """Load the newest intact checkpoint, chosen by rank 0 for all."""

        def choose():
            checkpoints.recover(self.folder.path / "checkpoints")
            found = checkpoints.newest(self.folder.path / "checkpoints")
            step = found[1]["step"] if found else 0
            sign = self.folder.last_heartbeat()
            checkpoints.discard_after(self.folder.path / "checkpoints", step)
            lost = self.folder.rewind(step if found else -1)
            self.again = {"steps_lost": lost, "last_sign": sign} if found else None
            self.recorder.remember(read_journal(self.folder.path / "journal.jsonl"))
            self.folder.event(
                "resume" if found else "start", step=step, attempt=self.folder.attempt
            )
            return found

        found = self.ranks.on_rank_zero(choose)
        if found is None:
            self._grow()
            return self.clock
        path, state = found
        for name, value in self._stream_state(self.clock.at(state["step"])).items():
            if state[name] != value:
                raise RunError(
                    f"checkpoint {path} was written at {name} {state[name]}; with these settings"
                    f" and data it would be {value}"
                )
        checkpoints.load(path, self.recipe.players)
        self.checks.restore(state)
        self.mishaps.restore(state)
        where = (
            f"continuing from step {state['step']} of"
            if state["step"] < self.last
            else f"already at step {state['step']}, asked for are"
        )
        console.say(f"{where} {self.last}, epoch {self.clock.at(state['step']).epoch:.1f}")
        return self.clock.at(state["step"])

    def _grow(self) -> None:
        """Start from narrower networks, where that is asked for. The same on all ranks."""
        if self.run.grow:
            from distgan.engine.widen import widen

            source = find_grow_source(self.run.grow)
            shapes = widen(source, self.recipe.players)
            if self.folder:
                self.folder.event("grown", source=str(source), shapes=shapes)
            console.say("\n".join([f"grown from {source}:", *(f"  {line}" for line in shapes)]))

    def _go_back(self, now: Clock, decision: Decision) -> Clock:
        """To the last healthy checkpoint, with the settings that were decided on.

        Saved anew, so that a restart goes on from there with them.
        """

        def choose():
            folder = self.folder.path / "checkpoints"
            path = folder / f"{self.checks.healthy:08d}"
            state = checkpoints.verify(path)
            checkpoints.discard_after(folder, state["step"])
            self.folder.rewind(state["step"])
            self.recorder.remember(read_journal(self.folder.path / "journal.jsonl"))
            return path, state

        path, state = self.ranks.on_rank_zero(choose)
        came_from, now = now.step, self.clock.at(state["step"])
        self.ranks.on_all_ranks(
            lambda: checkpoints.load(path, self.recipe.players)
        )  # all have read it before it is saved anew
        changed = self.checks.changed
        self.checks.restore(state | {"changed": changed, "memory": decision.memory})
        self.mishaps.restore(state)
        self.checks.change(now, decision, from_step=came_from, to_step=now.step)
        self.save(now)
        return now

    def save(self, now: Clock, must: bool = True) -> None:
        """Write a checkpoint. Without `must`, machine.on_full_disk may say to go on where it cannot
        be written. Collective.
        """
        self.flush(now)
        self.ranks.require_equal_state(
            f"after step {now.step}", checkpoints.sums(self.recipe.players)
        )
        began, healthy = time.perf_counter(), self.checks.healthy
        if not self.checks.troubled and self.mishaps.quiet:
            self.checks.healthy = now.step
        state = {
            **self._stream_state(now),
            "epoch": now.epoch,
            **self.checks.state(),
            **self.mishaps.state(),
        }
        players = checkpoints.held(self.recipe.players)

        def write():
            folder = self.folder.path / "checkpoints"
            self.folder.sync()
            checkpoints.save(folder, now.step, players, state)
            checkpoints.prune(
                folder,
                self.run.machine.keep,
                {self.checks.best and self.checks.best["step"], self.checks.healthy},
            )
            self.folder.event(
                "checkpoint", step=now.step, seconds=round(time.perf_counter() - began, 3)
            )
            self._status(now)

        if not self.ranks.on_rank_zero(
            lambda: write() is None if must else self.folder.write_or_warn(write)
        ):
            self.checks.healthy = healthy
        self.recorder.saved(time.perf_counter() - began)
        self.requests.saved(time.perf_counter() - began)
        watchdog.beat()

    def _stream_state(self, now: Clock) -> dict[str, Any]:
        """All that decides which samples come next."""
        return {"samples": now.samples, "seed": self.run.seed, "data": self.data.fingerprint}

    def _status(self, now: Clock) -> None:
        self.told = time.perf_counter()
        self.folder.status(
            state="running",
            cause=None,
            step=now.step,
            samples=now.samples,
            epoch=now.epoch,
            best=self.checks.best,
        )

    def _tell_lost(self) -> None:
        """Once, after the first step of an attempt that goes on."""
        if self.again:
            silent = time.time() - (self.again["last_sign"] or time.time())
            self.folder.event(
                "training_again", steps_lost=self.again["steps_lost"], seconds=round(silent, 1)
            )
            console.say(
                f"training again: {self.again['steps_lost']} steps lost, {silent:.0f} s after the"
                " last sign of the attempt before"
            )
            self.again = None

    # ---- numbers
    def flush(self, now: Clock) -> dict[str, float] | None:
        """Write the waiting numbers; returns what a person wants to see. Collective."""
        shown = self.recorder.flush()
        self.mishaps.look(now)
        if self.folder and shown and time.perf_counter() - self.told > HEARTBEAT_S:
            self._status(now)
        return shown

    def check(self, now: Clock) -> tuple[bool, Decision]:
        """Whatever is due at this step.

        Is the score the best so far, and what to do about trouble. Collective.
        """
        if not any(self.checks.due(now)) and not self.mishaps.pending:
            return False, Decision()
        self.flush(now)
        if self.mishaps.pending:
            return False, self.mishaps.pending
        found = self.checks.check(now)
        self.requests.checked()
        return found

    # ---- deliverables
    def _results(self) -> None:
        """What the recipe makes of the best checkpoint when training is over.

        RUN/results, whole or not at all. Collective.
        """
        if not isinstance(self.recipe, WritesResults):
            return

        def begin() -> tuple[str, str | None]:
            shutil.rmtree(self.folder.path / ".results", ignore_errors=True)
            (self.folder.path / ".results").mkdir()
            best, why = None, "no score was finite"
            if self.checks.best:
                best = self.folder.path / "checkpoints" / f"{self.checks.best['step']:08d}"
                try:
                    checkpoints.verify(best)
                except RunError as error:
                    why = (
                        error
                        if best.is_dir()
                        else (
                            f"no checkpoint is kept of step {int(best.name)}, which has the best"
                            " score"
                        )
                    )
                    best = None
            if best is None:
                console.say(f"note: results are made from the last step: {why}")
            return str(self.folder.path / ".results"), str(best) if best else None

        temporary, best = self.ranks.on_rank_zero(begin)
        if best:
            checkpoints.load(Path(best), self.recipe.players)
        self.recipe.results(self.data, self.ranks, Path(temporary))

        def end() -> None:
            final = self.folder.path / "results"
            shutil.rmtree(final, ignore_errors=True)
            if not any(Path(temporary).iterdir()):  # none were asked for
                return Path(temporary).rmdir()
            Path(temporary).replace(final)
            console.say(f"results in {final}")
            self.folder.event(
                "results",
                files=sum(1 for path in final.rglob("*") if path.is_file()),
                step=int(Path(best).name) if best else self.last,
            )

        self.ranks.on_rank_zero(end)

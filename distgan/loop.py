"""The one training loop: batches, step, journal, checks, save. It knows when; the recipe knows how; `watch` knows what it means."""

import json
import math
import signal
import time
from typing import Any

import numpy as np
import torch

from distgan import checkpoints, console, pictures, runs, signals, watch
from distgan.batches import Micro, Stream
from distgan.clock import Clock
from distgan.config import Run
from distgan.data import Data
from distgan.errors import RunError
from distgan.evaluator import Evaluator
from distgan.ranks import Ranks
from distgan.runs import RunFolder
from distgan.sharing import Breakdown

GRID = 64          # images of a sample grid
RECENT = 5000      # training rows that `watch` looks back on; rows of validations and evaluations are all kept
HEARTBEAT_S = 5.0  # at the most this often is status.json written between checkpoints
STOPPED = 75       # exit code of a run that saved and left on request: run the same line again (sysexits.h EX_TEMPFAIL)


class Loop:
    """What one process holds while it trains. `folder` is None on all ranks but the first."""

    def __init__(self, run: Run, recipe: Any, data: Data, share: Breakdown, ranks: Ranks,
                 folder: RunFolder | None, evaluator: Evaluator):
        self.run, self.recipe, self.data, self.share, self.ranks, self.folder = run, recipe, data, share, ranks, folder
        self.clock = Clock(share.batch * recipe.batches_per_step, len(data.train))
        self.last = self.clock.steps(run.epochs)
        self.evaluator = evaluator
        self.best: dict[str, Any] | None = None
        self.rows: list[tuple[Clock, float, dict[str, torch.Tensor]]] = []   # not yet fetched from the device
        self.seen: list[dict[str, Any]] = []                                 # rank 0: what `watch` looks at
        self.warned: list[str] = []
        self.stop = False
        self.began = self.flushed = self.told = time.perf_counter()

    # ---- the loop
    def train(self) -> str:
        """Train to the end, or until asked to stop. Returns the state: `done` or `stopped`."""
        before = {number: signal.signal(number, self._ask_to_stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            return self._train()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _train(self) -> str:
        now = self.resume()
        if now.step == 0:
            self.check(now)
        stream = iter(Stream(self.data, self.run.seed, self.share, self.ranks.rank, self.ranks.device, start=now.samples,
                             workers=self.run.machine.workers, resident_bytes=self.run.machine.resident_mb << 20,
                             window=self.run.shuffle_window or 0, crop=self.run.crop))
        state, shown = "done", None
        with console.bar("training", self.last, "steps", start=now.step) as bar:
            while now.step < self.last:
                batches = [next(stream) for _ in range(self.recipe.batches_per_step)]
                self._due(batches, now)
                asked = self.ranks.any_later(self.stop)  # the answer comes in while the step is taken
                log = self.recipe.step(batches, now)
                now = now.at(now.step + 1)
                if now.step % self.run.machine.journal_every == 0 or now.step == self.last:
                    self.rows.append((now, time.perf_counter() - self.began, log))
                if now.step % self.run.machine.flush_steps == 0:
                    shown = self.flush(now)
                bar.advance(1, shown, f"epoch {now.epoch:.1f}  {bar.rate * self.clock.per_step:.4g} images/s")
                (stop,) = asked()
                improved = self.check(now)
                early = bool(self.run.patience and self.best and now.epoch - self.best["epoch"] >= self.run.patience)
                if improved or stop or early or now.step == self.last or now.due(self.run.machine.checkpoint_every):
                    self.save(now)
                if stop or early:
                    state = "done" if early or now.step == self.last else "stopped"
                    break
        if self.folder and state == "done":
            early = now.step < self.last
            if early:
                console.say(f"finished early: no better {self.best['metric']} for {self.run.patience:g} epochs")
            self.folder.finish(now.step, now.epoch, early)
            self.folder.event("done", step=now.step, epoch=now.epoch, early=early)
        return state

    def _due(self, batches: list[list[Micro]], now: Clock) -> None:
        """Every rank holds just the stream positions that are due: a loader that shards twice, or skips, fails at the first step."""
        share, start = self.share, now.samples
        for batch in batches:
            for k, micro in enumerate(batch):
                first = start + (k * share.ranks + self.ranks.rank) * share.per_rank
                if not np.array_equal(micro.positions, np.arange(first, first + share.per_rank)):
                    raise RuntimeError(f"step {now.step + 1}, rank {self.ranks.rank}: the batch holds stream positions {micro.positions[:3]}…, "
                                       f"due are {first}…{first + share.per_rank - 1}")
            start += share.batch

    def _ask_to_stop(self, number, frame):
        if self.stop and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.stop:
            console.say("asked to stop: saving at the end of this step, or of the evaluation that runs; Ctrl-C again leaves at once")
        self.stop = True

    # ---- where a run stands
    def resume(self) -> Clock:
        """Load the newest intact checkpoint, chosen by rank 0 for all."""
        def choose():
            found = checkpoints.newest(self.folder.path / "checkpoints")
            step = found[1]["step"] if found else 0
            checkpoints.discard_after(self.folder.path / "checkpoints", step)
            self.folder.rewind(step if found else -1)
            self.seen = watch.read_journal(self.folder.path / "journal.jsonl")
            self.folder.event("resume" if found else "start", step=step, attempt=self.folder.attempt)
            return found

        found = self.ranks.alone(choose)
        if found is None:
            return self.clock
        path, state = found
        for name, value in self._stream_state(self.clock.at(state["step"])).items():
            if state[name] != value:
                raise RunError(f"checkpoint {path} was written at {name} {state[name]}; with these settings and data it would be {value}")
        checkpoints.load(path, self.recipe.players)
        self.best, self.warned = state["best"], state["warned"]
        where = f"continuing from step {state['step']} of" if state["step"] < self.last else f"already at step {state['step']}, asked for are"
        console.say(f"{where} {self.last}, epoch {self.clock.at(state['step']).epoch:.1f}")
        return self.clock.at(state["step"])

    def save(self, now: Clock) -> None:
        self.flush(now)
        state = {**self._stream_state(now), "epoch": now.epoch, "best": self.best, "warned": self.warned}
        players = checkpoints.held(self.recipe.players)

        def write():
            began = time.perf_counter()
            folder = self.folder.path / "checkpoints"
            self.folder.sync()
            checkpoints.save(folder, now.step, players, state)
            checkpoints.prune(folder, self.run.machine.keep, self.best and self.best["step"])
            self.folder.event("checkpoint", step=now.step, seconds=round(time.perf_counter() - began, 3))
            self._status(now)

        self.ranks.alone(write)

    def _stream_state(self, now: Clock) -> dict[str, Any]:
        """All that decides which samples come next."""
        return {"samples": now.samples, "seed": self.run.seed, "data": self.data.fingerprint}

    def _status(self, now: Clock) -> None:
        self.told = time.perf_counter()
        self.folder.status(state="running", cause=None, step=now.step, samples=now.samples, epoch=now.epoch, best=self.best)

    # ---- numbers
    def flush(self, now: Clock) -> dict[str, float] | None:
        """Fetch waiting numbers from the device, average them over ranks, write them; returns what a person wants to see. Collective."""
        shown = self._fetch(now) if self.rows else None
        self._refuse_to_skip_on(now)
        return shown

    def _fetch(self, now: Clock) -> dict[str, float]:
        names = list(self.rows[0][2])
        table = self.ranks.mean(torch.stack([torch.stack([log[name].double() for name in names]) for _, _, log in self.rows])).tolist()
        rows = [{"step": at.step, "samples": at.samples, "epoch": round(at.epoch, 6), "seconds": round(seconds, 3),
                 **dict(zip(names, values, strict=True))} for (at, seconds, _), values in zip(self.rows, table, strict=True)]
        elapsed, steps = time.perf_counter() - self.flushed, len(rows) * self.run.machine.journal_every
        rows[-1]["images_per_second"] = round(steps * self.clock.per_step / max(elapsed, 1e-9), 2)
        self.rows, self.flushed = [], time.perf_counter()
        self._write(rows)
        if self.folder and time.perf_counter() - self.told > HEARTBEAT_S:
            self._status(now)
        return {name: value for name, value in zip(names, table[-1], strict=True) if name.endswith("/loss")}

    def _refuse_to_skip_on(self, now: Clock) -> None:
        """Players count, not journal rows, and on the device: fetched with the numbers, so that no step waits for it. The same on all ranks."""
        worst = int(max(player.worst.item() for player in self.recipe.players.values()))
        if worst >= self.run.max_skips:
            raise RunError(f"{worst} updates in a row had a gradient that is not finite, up to step {now.step}; the last good checkpoint is kept. "
                           "Lower g_lr and d_lr, or look for broken images with `distgan shard … --drop-low-quality`")

    def _write(self, rows: list[dict[str, Any]]) -> None:
        """Rank 0: to the journal. JSON knows no NaN, so a number that is not finite is written as null beside `nonfinite`."""
        if not self.folder:
            return
        for row in rows:
            bad = [name for name, value in row.items() if isinstance(value, float) and not math.isfinite(value)]
            row |= {name: None for name in bad} | ({"nonfinite": bad} if bad else {})
        self.folder.journal(rows)
        training = [row for row in self.seen if "d/loss" in row]
        self.seen = [row for row in self.seen if "d/loss" not in row] + training[-RECENT:] + rows

    # ---- checks
    def check(self, now: Clock) -> bool:
        """Whatever is due at this step: a grid, a validation, an evaluation. True if the score is the best so far. Collective."""
        run, ends = self.run, now.step in (0, self.last)
        grid, validate = ends or now.due(run.sample_every), ends or now.due(run.validate_every)
        evaluate = ends or now.due_in(run.evaluate.schedule)
        if not (grid or validate or evaluate):
            return False
        self.flush(now)
        began = time.perf_counter()
        head = {"step": now.step, "samples": now.samples, "epoch": round(now.epoch, 6)}
        if grid or validate:
            self.ranks.alone(lambda: self._on_rank_0(head, grid, validate))
        improved = evaluate and self._evaluate(head)
        if self.folder:
            self._warn(now)
        self.flushed += time.perf_counter() - began  # checks do not count as training time
        return improved

    def _on_rank_0(self, head: dict[str, Any], grid: bool, validate: bool) -> None:
        if grid:
            images = self.recipe.sample(np.arange(GRID), "noise/grid")
            pictures.save_grid(self.folder.path / "samples" / f"{head['step']:08d}.png", signals.to_bytes(images))
        if validate:
            numbers = self.recipe.validate(self.data)
            self._write([head | numbers])
            self.folder.event("validation", **head, **numbers)

    def _evaluate(self, head: dict[str, Any]) -> bool:
        result = self.evaluator(self.recipe.sample)
        improved = self.best is None or result["score"] < self.best["score"]
        if improved:
            self.best = head | {"score": result["score"], "metric": result["metric"]}
        if self.folder:
            self._write([head | {f"eval/{result['metric']}": result["score"]}])
            runs.write(self.folder.path / "eval" / f"{head['step']:08d}.json", json.dumps(head | result, indent=1))
            self.folder.event("best" if improved else "evaluation", **head, metric=result["metric"], score=result["score"])
            console.say(f"epoch {head['epoch']:.1f}  {result['metric']} {result['score']:.4g}" + ("  best so far" if improved else ""))
        return improved

    def _warn(self, now: Clock) -> None:
        """Rank 0: say what `watch` found, once for as long as it stays."""
        findings = watch.check(sorted(self.seen, key=lambda row: row["step"]), self.run.watch)
        for finding in findings:
            if finding.rule not in self.warned:
                self.folder.event("warning", step=now.step, epoch=now.epoch, rule=finding.rule, message=finding.message, advice=finding.advice)
                console.say(f"{finding.level}: {finding.message}. Moves: {finding.advice}")
        self.warned = [finding.rule for finding in findings]

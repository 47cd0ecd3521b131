"""The match: every contestant is opened, gated, tuned and then measured in turns, workload by workload."""

import hashlib
import importlib.util
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoConfig

from embedtrain.model.tokens import load_tokenizer
from tools.bench.contestants import (
    BARE,
    CACHED,
    RECOMPUTING,
    ROOT,
    Answer,
    Contestant,
    Settings,
    Size,
    Stopped,
    Worker,
)
from tools.bench.step_figures import Figures, summarise, told
from tools.bench.workloads import Workload, draw_workload, random_stream, text_stream

SEED = 0
SAMPLES = (
    "How do I list the files in a folder?",
    "A decoder becomes an encoder when every token may look at all the others.",
)


class Refused(Exception):
    """A contestant that fails the gate, or one that must be there and is not."""


@dataclass
class Progress:
    """What is being done, and about how long the rest takes, as if all steps took as long."""

    steps: int
    done: int = 0
    started: float = field(default_factory=time.monotonic)

    def say(self, what: str) -> None:
        """A line after a step."""
        self.done += 1
        passed = time.monotonic() - self.started
        left = passed / self.done * max(0, self.steps - self.done)
        print(
            f"[{self.done}/{self.steps}] {what}; {passed / 60:.1f} min, about {left / 60:.0f} left",
            flush=True,
        )


@dataclass
class Player:
    """A contestant with its process and what was measured of it."""

    who: Contestant
    worker: Worker
    figures: Figures = field(default_factory=dict)


class Match:
    """All workloads of one size. `absent`: who cannot take part at all; `unfit`: what did not fit where."""

    def __init__(
        self, size: Size, chosen: Sequence[Contestant], work: Path, threads: int, planned: int
    ) -> None:
        self.size = size
        self.chosen = list(chosen)
        self.threads = threads
        model = json.dumps([size.model, size.config, size.layers, size.precision], sort_keys=True)
        self.work = work / f"train_step-{hashlib.sha256(model.encode()).hexdigest()[:12]}"
        self.work.mkdir(parents=True, exist_ok=True)
        self.folder = self.work / "model"
        self.absent = {
            one.name: f"{one.needs} is not installed"
            for one in chosen
            if one.needs and importlib.util.find_spec(one.needs) is None
        }
        self.unfit: list[str] = []
        self.progress = Progress(
            planned * sum(self.steps(one) for one in chosen if one.name not in self.absent)
        )

    def steps(self, one: Contestant) -> int:
        """All that a contestant takes on a workload."""
        tries = len(self.size.grid(one))
        return 1 + (tries if tries > 1 else 0) + self.size.warmups + self.size.rounds

    def play(self, name: str) -> Figures:
        """One workload: its figures. Raises Refused."""
        self.make_model()
        batch = self.make_batch(name)
        path, lengths = batch.save(self.work / f"{name}.npz"), batch.lengths
        figures: Figures = {
            "pairs": batch.num_rows,
            "texts": len(lengths),
            "real_tokens": int(lengths.sum()),
            "squares": int((lengths**2).sum()),
            "tokens_a_text": {f"p{p}": int(np.percentile(lengths, p)) for p in (10, 50, 90, 100)},
            "contestants": {},
        }
        self.gate_of_bare: Path | None = None
        waiting = [one for one in self.chosen if one.name not in self.absent]
        for some in [waiting] if self.size.together else [[one] for one in waiting]:
            for player in self.measure(some, path, figures["contestants"]):
                figures["contestants"][player.who.name] = player.figures
        config = AutoConfig.from_pretrained(self.folder)
        heads = config.num_attention_heads
        dims = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
        summarise(figures, self.size.clock, {"layers": config.num_hidden_layers, "attention": dims})
        return figures

    def measure(self, some: Iterable[Contestant], batch: Path, known: Figures) -> list[Player]:
        """Open, gate and tune these contestants, then let them take turns; those that could."""
        players = [
            Player(one, Worker(self.work / f"{one.name.replace(' ', '_')}.log", self.threads)) for one in some
        ]
        every = list(players)
        try:
            for player in every:
                met = known | {other.who.name: other.figures for other in players}
                if not self.attempt(player, batch, partial(self.enter, player, batch, met)):
                    players.remove(player)
            for number in range(self.size.warmups + self.size.rounds):
                for player in list(players):
                    if not self.attempt(player, batch, partial(self.turn, player, number)):
                        players.remove(player)
        finally:
            for player in every:
                player.worker.end()
        return players

    def attempt(self, player: Player, batch: Path, what: Callable[[], None]) -> bool:
        """Do it; False, the reason told, where a contestant cannot go on that need not. Raises Refused."""
        who = player.who
        try:
            what()
        except Stopped as error:
            if error.kind == "memory":
                self.unfit.append(f"{batch.stem}, {who.name}: does not fit: {error}")
            elif who.needs or error.kind == "absent":
                self.absent[who.name] = str(error)
            else:
                raise Refused(f"{who.name} failed: {error}") from None
            print(f"{who.name}: skipped, {error}", flush=True)
            player.worker.end()
            return False
        return True

    def enter(self, player: Player, batch: Path, known: Figures) -> None:
        """Open, gate and tune one contestant."""
        self.open(player, batch)
        self.gate(player, batch)
        self.tune(player, known)

    def open(self, player: Player, batch: Path) -> None:
        """Let the process open its peer."""
        samples: tuple[list[str], list[list[int]]] = ([], [])
        if self.size.config is None:
            tokenizer = load_tokenizer(self.folder)
            samples = (list(SAMPLES), [tokenizer.encode(text).ids for text in SAMPLES])
        opened = player.worker.ask(
            "open",
            peer=player.who.opens,
            folder=str(self.folder),
            workload=str(batch),
            scratch=str(self.work / "scratch"),
            device=self.size.device,
            precision=self.size.precision,
            samples=samples,
        )
        player.figures |= opened

    def gate(self, player: Player, batch: Path) -> None:
        """The first step must see the same tokens, and give the bare loop's loss and gradient."""
        name = player.who.name
        gradient = batch.with_name(f"{batch.stem}-{name.replace(' ', '_')}-gradient.npz")
        found = player.worker.ask("gate", rows=self.size.gate_rows, gradient=str(gradient))
        if name == BARE:
            self.gate_of_bare, self.loss_of_bare = gradient, found["loss"]
        if self.gate_of_bare is None:
            raise Refused("the bare loop could not take its first step; all others are compared with it")
        gap = abs(found["loss"] - self.loss_of_bare) / abs(self.loss_of_bare)
        angle = 1 - cosine(gradient, self.gate_of_bare)
        player.figures["gate"] = found | {"loss_difference": gap, "one_less_cosine": angle}
        faults = gate_faults(player.figures["gate"], self.size.gate)
        if faults:
            raise Refused(f"{name} fails the gate on {batch.stem}: {'; '.join(faults)}")
        size = self.size
        player.figures["ceiling"] = player.worker.ask(
            "ceiling", size=size.product, precision=size.precision, repeats=3
        )
        self.progress.say(f"{batch.stem} {name}: gate passed, loss {gap:.0e}, cosine {angle:.0e}")

    def tune(self, player: Player, known: Figures) -> None:
        """Try every setting once; the fastest counts, for our recomputing one in the cached peer's memory."""
        grid = self.size.grid(player.who)
        tried: list[Answer] = []
        for settings in grid if len(grid) > 1 else []:
            try:
                tried.append({"settings": settings} | self.step(player, settings, "tuning"))
            except Stopped as error:
                if error.kind != "memory":
                    raise
                self.progress.say(f"{player.who.name} {told(settings)}: does not fit")
        if not tried and len(grid) > 1:
            raise Stopped("no setting fits", "memory")
        fits, most = tried, known.get(CACHED, {}).get("memory_at_best")
        if tried and most is not None and player.who.name == RECOMPUTING:
            least = min(one["memory"] for one in tried)
            fits = [one for one in tried if one["memory"] <= max(least, most)]
        fits = fits or [{"settings": grid[0], "memory": None, self.size.clock: 0.0}]
        best = min(fits, key=lambda one: float(one[self.size.clock]))
        player.figures |= {"tuning": tried, "settings": best["settings"], "memory_at_best": best["memory"]}
        player.figures["rounds"] = []

    def turn(self, player: Player, number: int) -> None:
        """One step of a contestant; warm-ups are not kept."""
        warming = number < self.size.warmups
        taken = self.step(player, player.figures["settings"], "warm-up" if warming else "round", not number)
        if "positions" in taken:
            player.figures |= {
                name: taken.pop(name) for name in ("positions", "repeated", "squares", "real_tokens")
            }
        if not warming:
            player.figures["rounds"].append(taken)

    def step(self, player: Player, settings: Settings, why: str, watch: bool = False) -> Answer:
        """Ask for a step and tell of it."""
        taken = player.worker.ask("step", settings=settings, watch=watch)
        what = " ".join(filter(None, (player.who.name, told(settings))))
        spent = f"{taken['cpu']:.1f} CPU-s, {taken['wall']:.1f} s, {taken['memory'] / 1e9:.2f} GB"
        self.progress.say(f"{why}, {what}: {spent}")
        return taken

    def make_model(self) -> None:
        """The checkpoint that all open, made once."""
        if (self.folder / "lora.npz").is_file():
            return
        print(f"making {self.folder.name} of {self.size.model}", flush=True)
        worker = Worker(self.work / "make.log", self.threads)
        size = self.size
        asked: dict[str, Any] = {"model": size.model, "config": size.config, "layers": size.layers}
        try:
            worker.ask("make", **asked, precision=size.precision, device=size.device, folder=str(self.folder))
        except Stopped as error:
            raise Refused(f"the model cannot be made: {error}") from None
        finally:
            worker.end()

    def make_batch(self, name: str) -> Workload:
        """The workload's tokens: real text where there is a tokenizer for it."""
        shape = self.size.shape(name)
        if self.size.config is not None:
            stream = random_stream(int(self.size.config["vocab_size"]), 1 << 20, SEED)
        else:
            files = sorted((ROOT / "rows").glob("*/train.parquet"))
            stream = text_stream(load_tokenizer(self.folder), files, 200_000)
        batch = draw_workload(name, shape, stream, SEED)
        padding = int(AutoConfig.from_pretrained(self.folder).pad_token_id or 0)
        if any({0, padding} & set(text) for column in batch.columns for text in column):
            raise Refused(f"{name}: a text holds the id of padding")
        return batch


def gate_faults(found: Figures, bounds: tuple[float, float]) -> list[str]:
    """What a first step has in which it is not the bare loop's; nothing lets it pass."""
    gap, angle = found["loss_difference"], found["one_less_cosine"]
    faults = []
    if found["causal"]:
        faults.append("its first token does not see the last")
    if not found["same_tokens"]:
        faults.append("it was given other tokens")
    if not (gap <= bounds[0] and angle <= bounds[1]):
        faults.append(f"its loss differs by {gap:.1e} and its gradient's cosine by {angle:.1e}")
    return faults


def cosine(first: Path, second: Path) -> float:
    """Of two gradients, all tensors end to end; raises Refused where they are not of the same tensors."""
    with np.load(first) as one, np.load(second) as other:
        if sorted(one.files) != sorted(other.files) or not one.files:
            raise Refused(f"gradients of {len(one.files)} tensors against {len(other.files)}")
        names = sorted(one.files)
        left, right = (
            np.concatenate([file[n].ravel().astype(np.float64) for n in names]) for file in (one, other)
        )
    return float(left @ right / np.linalg.norm(left) / np.linalg.norm(right))

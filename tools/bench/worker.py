"""A process that holds one peer and takes one step when told: `python tools/bench/worker.py`.

It reads a line of JSON from stdin and answers with one. What libraries print goes to stderr.

Memory on a CPU is the peak of resident memory in a step above what was resident before it, freed memory given
back to the system first (tools/peak.py). On a GPU it is torch's peak of allocated memory, weights included.
"""

import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from tools.bench.peers.parts import Given, Peer  # noqa: E402
from tools.bench.start import adapters, draw_lora, fill_adapters, save_random, save_real  # noqa: E402
from tools.bench.watch import Watch  # noqa: E402
from tools.bench.workloads import Workload  # noqa: E402
from tools.peak import device_peak, give_back, start_peak  # noqa: E402

Answer = dict[str, Any]


def main() -> None:
    """Answer until stdin ends."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker = Worker()
    for line in sys.stdin:
        asked: Answer = json.loads(line)
        print(json.dumps(answer(worker, asked)), file=out, flush=True)


def answer(worker: "Worker", asked: Answer) -> Answer:
    """What the command says, or what went wrong: `absent` for an import, `memory` for too little of it."""
    do: Callable[..., Answer] = getattr(worker, asked.pop("do"))
    try:
        return do(**asked)
    except ImportError as error:
        return {"error": f"cannot be imported: {error}", "kind": "absent"}
    except (torch.OutOfMemoryError, MemoryError) as error:
        kind, told = "memory", str(error).splitlines()[0]
    except Exception as error:
        traceback.print_exc()
        lines = str(error).splitlines() or [""]
        return {"error": f"{type(error).__name__}: {lines[0]}", "kind": "failed"}
    worker.drop_gradients()
    return {"error": told, "kind": kind}


class Worker:
    """One peer and its batch."""

    def __init__(self) -> None:
        self.peer: Peer | None = None

    def make(
        self, model: str, config: Answer | None, layers: int | None, precision: str, device: str, folder: str
    ) -> Answer:
        """Save the checkpoint and the LoRA start that all peers open."""
        made = Path(folder)
        if config is None:
            save_real(model, layers, made)
        else:
            save_random(config, precision, device, 0, made)
        np.savez(made / "lora.npz", **draw_lora(made, seed=1))  # type: ignore[arg-type]
        return {}

    def open(
        self,
        peer: str,
        folder: str,
        workload: str,
        scratch: str,
        device: str,
        precision: str,
        samples: tuple[list[str], list[list[int]]],
    ) -> Answer:
        """Open `tools/bench/peers/<module>.<function>`, fill its adapters, read the batch."""
        module, _, opens = peer.partition(".")
        given = Given(Path(folder), Path(scratch), device, precision)
        self.device = torch.device(device)
        self.peer = getattr(importlib.import_module(f"tools.bench.peers.{module}"), opens)(given)
        with np.load(given.folder / "lora.npz") as file:
            fill_adapters(self.peer.model, dict(file))
        if samples[0]:
            self.peer.check_tokens(*samples)
        self.batch = Workload.load(Path(workload))
        return {"parameters": self.count_parameters()}

    def count_parameters(self) -> Answer:
        """What a token is multiplied with: the linear layers', adapters apart, and the adapters'."""
        assert self.peer is not None
        lora = sum(p.numel() for _, p in adapters(self.peer.model))
        inside = sum(
            p.numel() for n, p in self.peer.backbone.named_parameters() if "layers." in n and p.ndim == 2
        )
        return {"linear": inside - lora, "lora": lora}

    def gate(self, rows: int | None, gradient: str) -> Answer:
        """The first step, on the first rows: loss, LoRA gradient into a file, and if the tokens are right."""
        assert self.peer is not None
        part = self.batch.head(rows)
        with Watch(self.peer.backbone, ids=True) as watch:
            loss = self.peer.backward(self.peer.collate(part))
        found = {n: p.grad.float().cpu().numpy() for n, p in adapters(self.peer.model) if p.grad is not None}
        np.savez(gradient, **found)  # type: ignore[arg-type]
        self.peer.update()
        seen, expected = watch.histogram(), np.bincount([t for c in part.columns for text in c for t in text])
        same = len(seen) == len(expected) and bool((seen == expected).all())
        return {"loss": loss, "same_tokens": same, "causal": self.probe()}

    def probe(self) -> bool:
        """Whether the first token's state stays as it is when the last token is another one."""
        assert self.peer is not None
        ids_TL = torch.tensor([self.batch.queries[0], self.batch.queries[0]], device=self.device)
        ids_TL[1, -1] = (ids_TL[1, -1] + 1) % int(ids_TL.max() + 1)
        with torch.no_grad():
            states_TLD = self.peer.backbone(input_ids=ids_TL).last_hidden_state.float()
        change = (states_TLD[0, 0] - states_TLD[1, 0]).abs().max()
        return not float(change / states_TLD[0, 0].abs().max()) > 1e-6

    def step(self, settings: dict[str, int], watch: bool = False) -> Answer:
        """One optimizer step on the whole batch: CPU-seconds, seconds, memory, loss; tokens where watched."""
        assert self.peer is not None
        self.peer.set(**settings)
        collated = self.peer.collate(self.batch)
        held = start_peak(self.device.type)
        cpu, wall = time.process_time(), time.perf_counter()
        with Watch(self.peer.backbone, ids=False, on=watch) as watched:
            loss = self.peer.backward(collated)
        self.peer.update()
        self.wait()
        taken = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
        peak = device_peak(self.device.type)
        figures = taken | {"loss": loss, "memory": peak if self.device.type == "cuda" else peak - held}
        return figures | (watched.figures() if watch else {})

    def ceiling(self, size: int, precision: str, repeats: int) -> Answer:
        """FLOP a second of a square product in this process, by the clock and by CPU-seconds; the best."""
        left, right = (
            torch.randn(size, size, device=self.device, dtype=getattr(torch, precision)) for _ in range(2)
        )
        best = {"cpu": 0.0, "wall": 0.0}
        for _ in range(repeats + 1):  # the first warms up
            self.wait()
            cpu, wall = time.process_time(), time.perf_counter()
            left @ right
            self.wait()
            taken = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
            best = {clock: max(best[clock], 2 * size**3 / max(taken[clock], 1e-9)) for clock in best}
        return best

    def wait(self) -> None:
        """Until the device has done all that it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def drop_gradients(self) -> None:
        """After a step that did not fit."""
        if self.peer is not None:
            self.peer.model.zero_grad()
        give_back()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()

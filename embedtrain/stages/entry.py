"""Starts the work of one stage folder in this process and marks the folder done."""

import os
import signal
import time
from importlib import import_module
from pathlib import Path

from embedtrain.artifacts import mark_done
from embedtrain.config.errors import UserError, disk_full_is_an_error
from embedtrain.places import end, fail
from embedtrain.stages.context import STAGE_FILE, StageContext, read_context
from embedtrain.stages.run_report.machine import ran_on
from embedtrain.stops import SIGNALS, die_with_starter


def work_on(folder: Path) -> None:
    """Do the work that `stage.json` in the folder describes; rank 0 writes `done.json` last.

    Raises UserError where the folder is not one that the pipeline made, and for all that stops the work; of
    several processes only the first to fail says why.
    """
    if not (folder / STAGE_FILE).is_file():
        raise UserError(f"{folder}: no {STAGE_FILE} there; stage folders are made by `embedtrain run`")
    die_with_starter()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    context = read_context(folder)
    try:
        with disk_full_is_an_error(folder):
            finish(context)
    except Exception as error:
        raise fail(folder, context.stage.name, error, context.machine.timeout_seconds) from None
    finally:
        end()


def finish(context: StageContext) -> None:
    """The work, then the marker."""
    module = import_module(f"embedtrain.stages.{context.stage.kind}")
    start, folder = time.monotonic(), context.folder
    facts = module.run_stage(context)
    if os.environ.get("RANK", "0") == "0":
        steps = facts.get("step_seconds", 0.0)  # of every launch of a stage that was resumed
        seconds = round(max(time.monotonic() - start, steps), 1)
        mark_done(folder, {"stage": context.stage.name, "seconds": seconds, "facts": facts, **ran_on()})

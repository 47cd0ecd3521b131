"""A run's stages as plain lines, one where a stage starts, one where it is done: on terminals and in logs."""

from collections.abc import Mapping, Sequence

from embedtrain.show.progress import duration_text, figures_text

SHOWN_FACTS = {"last_loss": "loss", "tokens_per_second": "tokens/s"}
"""Of what a stage says of itself: what its line shows, and how it is called there."""


def started(stages: Sequence[tuple[str, str]], number: int, waiting: Sequence[str]) -> str:
    """`▶ finetune (train), 3 of 7; then soup, final` for a place in (name, kind) of all stages."""
    name, kind = stages[number]
    then = f"; then {', '.join(waiting)}" if waiting else ""
    return f"▶ {name} ({kind}), {number + 1} of {len(stages)}{then}"


def finished(name: str, kind: str, record: Mapping[str, object]) -> str:
    """`✓ finetune (train) 2:03 min  loss 0.1234`, from what the stage's done.json says."""
    seconds, facts = record.get("seconds"), record.get("facts")
    took = f" {duration_text(seconds)}" if isinstance(seconds, float | int) else ""
    known = facts if isinstance(facts, Mapping) else {}
    figures = {shown: known[fact] for fact, shown in SHOWN_FACTS.items() if fact in known}
    return f"✓ {name} ({kind}){took}  {figures_text(figures)}".rstrip()

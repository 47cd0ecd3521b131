"""Whatever is wrong with a run file, a user reads our sentences: no traceback, none of pydantic's words."""

import copy
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from embedtrain.config.check import read_config
from embedtrain.config.errors import ConfigError
from embedtrain.templates import validate_template

FOLDER = Path(__file__).parent / "broken"
JUNK = (
    None,
    True,
    -1,
    0,
    2.5,
    10**30,
    float("nan"),
    "",
    "base",
    "x y",
    [],
    [1],
    ["base"],
    {},
    {"kind": "train"},
)
FOREIGN_WORDS = ("Input should", "Value error", "validation error", "[type=", "<class", "None", "constrained")


def spots(value: Any) -> list[tuple[Any, Any]]:
    """(section or list, key or index) of every value in nested sections and lists."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else []
    return [spot for key, inner in items for spot in [(value, key), *spots(inner)]]


def damage(content: Any, draw: random.Random) -> None:
    """Put junk somewhere, drop a value, or give it another key."""
    section, key = draw.choice(spots(content))
    act = draw.choice(("put", "put", "drop", "rename"))
    if act == "put" or isinstance(section, list):
        section[key] = copy.deepcopy(draw.choice(JUNK))
    else:
        value = section.pop(key)
        if act == "rename":
            section[f"{key}x"] = value


def told(path: Path) -> list[str]:
    """The messages about a file; none where it is fine."""
    try:
        read_config(path, count_rows=lambda _: 6, validate_template=validate_template)
    except ConfigError as error:
        return error.messages
    return []


OBJECTIVE = """
terms:
  - kind: infonce
    temperature: {initial: 0.05, maximum: 0.1}
    masks: [{kind: same_text}, {kind: above_margin, judge: teacher}, {kind: teacher_relevant, threshold: 1}]
    focal: {gamma: 0.5}
    mixing: [{kind: pair, count: 2}, {kind: list, parents: hardest}]
    matryoshka: {dims: [64, 8], weights: [1, 0.5]}
  - {kind: sigmoid, bias: -5, temperature: 0.1, sources: [faq]}
  - {kind: distill_kl, teacher: vectors, student_temperature: {minimum: 0.02}}
  - {kind: embed_distill, projection: true, queries: false}
  - {kind: spread, documents: false, weight: 0.1}
"""


def with_all_of_the_objective(content: Any) -> Any:
    """The run with a fine-tuning that uses most of what an objective may hold, and a source's switches."""
    tune = next(stage for stage in content["stages"] if stage["name"] == "finetune")
    tune |= {"objective": yaml.safe_load(OBJECTIVE), "teacher": {"model": "owner/name", "max_tokens": 8}}
    content["sources"]["notes"]["blocks"] = {"in_batch_positives": False, "symmetric": True}
    return content


@pytest.mark.parametrize("change", [lambda content: content, with_all_of_the_objective])
def test_any_damage_is_told_in_our_own_words(
    change: Callable[[Any], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(FOLDER)
    valid = yaml.safe_load((FOLDER / "valid.yaml").read_text().replace("e-", ".0e-"))
    text = yaml.safe_dump(change(valid))
    path = tmp_path / "run.yaml"
    path.write_text(text)
    assert told(path) == []
    draw, refused = random.Random(5), 0
    for _ in range(150):
        content = yaml.safe_load(text)
        for _ in range(draw.randint(1, 3)):
            damage(content, draw)
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        messages = told(path)
        refused += bool(messages)
        for message in messages:
            assert message.startswith(f"{path}: ")
            assert not any(word in message for word in FOREIGN_WORDS), message
    assert refused > 100


def test_no_expected_message_is_pydantics() -> None:
    messages = "\n".join(path.read_text() for path in FOLDER.rglob("*.txt"))
    assert "unknown key" in messages
    assert not any(word in messages for word in FOREIGN_WORDS)

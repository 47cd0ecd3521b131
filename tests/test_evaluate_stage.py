"""What an evaluate stage may ask for, and what it may not."""

import pytest
from pydantic import ValidationError

from embedtrain.config.stages import Evaluate, MtebTask


def test_a_stage_names_tasks_and_some_of_their_parts() -> None:
    entries = ["STS12", {"task": "STS22.v2", "languages": ["eng"]}]
    stage = Evaluate.model_validate({"name": "e", "kind": "evaluate", "models": ["m"], "mteb": entries})
    assert stage.mteb == (MtebTask(task="STS12"), MtebTask(task="STS22.v2", languages=("eng",)))
    assert (stage.data, stage.mteb_results) == ((), False)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "neither data nor mteb is given; expected one of them"),
        (
            {"mteb": ["STS12"], "intermediate": ["n"]},
            "intermediate models are measured on the first of `data`, and none is given",
        ),
    ],
)
def test_a_stage_with_nothing_to_measure(given: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Evaluate.model_validate({"name": "e", "kind": "evaluate", "models": ["m"]} | given)

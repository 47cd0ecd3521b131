"""What answers mean: numbers, a refusal to explain, or a reason to ask again. Pure."""

import json
import time
from email.utils import parsedate_to_datetime
from typing import Any

import numpy as np

from embedtrain.config.errors import UserError, shorten
from embedtrain.config.retrievers import EndpointJudge
from embedtrain.mining.endpoint.protocols import Batch, Malformed, Wire, title

SHAPES = {"vectors": (2, "(texts, dims)"), "scores": (1, "(texts,)")}
AGAIN = (408, 409, 425, 429, 500, 502, 503, 504, 529)
NO_MONEY = "insufficient_quota"
MESSAGE_KEYS = ("error", "message", "detail")
MESSAGE_CHARS = 300


class Refused(UserError):
    """The server says no, and would say it again."""


class Later(Exception):
    """A failure that may pass. `seconds` is how long the server asks to wait, if it does."""

    def __init__(self, reason: str, seconds: float | None = None) -> None:
        """Say why."""
        super().__init__(reason)
        self.seconds = seconds


def read_numbers(judge: EndpointJudge, wire: Wire, batch: Batch, answer: Any) -> np.ndarray:
    """float32 (texts, dims) or (texts,) of an answer; UserError where it holds anything else."""
    where = f"{title(judge)}{wire.path}"
    try:
        with np.errstate(over="ignore"):  # what float32 does not hold is not finite, below
            numbers = np.array(wire.numbers(answer, len(batch.texts)), np.float32)
    except Malformed as error:
        raise UserError(f"{where}: not an answer of protocol {judge.protocol}: {error}") from None
    except (TypeError, ValueError):
        raise UserError(f"{where}: {judge.gives} that are not numbers, or not equally many a text") from None
    num_dimensions, shape = SHAPES[judge.gives]
    if numbers.ndim != num_dimensions or not numbers.size:
        raise UserError(f"{where}: found {judge.gives} of shape {numbers.shape}, expected {shape}")
    finite = np.isfinite(numbers.reshape(len(numbers), -1)).all(axis=1)
    if not finite.all():
        text = batch.texts[int(np.argmin(finite))]
        raise UserError(f"{where}: gives a number that is not finite (NaN or infinite) for {shorten(text)}")
    return numbers


def later(status: int, text: str, retry_after: str | None) -> Later | None:
    """The reason to ask again, or None where the server would refuse again."""
    if status not in AGAIN or NO_MONEY in text:
        return None
    return Later(f"HTTP {status} {message_in(text)}".rstrip(), seconds_in(retry_after))


def seconds_in(retry_after: str | None) -> float | None:
    """The header `Retry-After`, seconds or a date, as seconds from now."""
    if retry_after is None:
        return None
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return None


def message_in(text: str) -> str:
    """What a server says in the body of a refusal, in one line."""
    try:
        found = json.loads(text)
    except ValueError:
        found = text
    while isinstance(found, dict):
        found = next((found[key] for key in MESSAGE_KEYS if found.get(key)), "")
    line = " ".join(str(found).split())
    return line if len(line) <= MESSAGE_CHARS else line[: MESSAGE_CHARS - 1] + "…"


def explain(judge: EndpointJudge, path: str, batch: Batch, status: int, text: str) -> str:
    """A refusal, with what the server says and what to do."""
    key = judge.key_variable or "(none: give key_variable)"
    advice = ADVICE.get(status, "").format(key=key, protocol=judge.protocol)
    if status in (400, 413, 422) and batch.texts:
        longest = max(batch.texts, key=len)
        advice = (
            f"; the request had {len(batch.texts)} texts (texts_per_request {judge.texts_per_request}), the "
            f"longest of {len(longest):,} characters: {shorten(longest)}"
        )
    return f"{title(judge)}{path}: HTTP {status} {message_in(text)}".rstrip() + advice


ADVICE = {
    301: "; it has moved: write the new address into url",
    302: "; it redirects: write the other address into url",
    307: "; it redirects: write the other address into url",
    308: "; it has moved: write the new address into url",
    401: "; the key is read from the environment variable {key}",
    403: "; the key is read from the environment variable {key}",
    404: "; the url must end where the version does (…/v1), the protocol be the server's (here {protocol})",
    405: "; is the protocol the server's? (here {protocol})",
    424: "; does the server run a model that gives this?",
}

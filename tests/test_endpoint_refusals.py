"""What endpoints refuse or give that is no answer: one clear sentence each."""

import math
from collections.abc import Iterator

import pytest
from endpoint_server import DIM, Server, encode, instead, quick, refusal, serving, status

from embedtrain.config.errors import UserError


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as one:
        yield one


REFUSALS = {
    400: "{texts}",
    413: "{texts}",
    422: "{texts}",
    401: "; the key is read from the environment variable (none: give key_variable)",
    404: "; the url must end where the version does (…/v1), the protocol be the server's (here openai)",
    405: "; is the protocol the server's? (here openai)",
    424: "; does the server run a model that gives this?",
    418: "",
}


@pytest.mark.parametrize("code", REFUSALS)
def test_a_refusal_says_what_to_do(server: Server, code: int) -> None:
    server.faults = [status(code, {"error": f"of {code}", "error_type": "Validation"})]
    texts = "; the request had 4 texts (texts_per_request 4), the longest of 6 characters: 'text 0'"
    expected = f"HTTP {code} of {code}{REFUSALS[code].replace('{texts}', texts)}"
    judge = server.judge(parallel_requests=1)
    assert refusal(server, judge) == f"endpoint 'endpoint' (URL/v1)/embeddings: {expected}"
    assert len(server.asked) == 1


def data(*vectors: object) -> dict[str, object]:
    return {"data": [{"index": number, "embedding": vector} for number, vector in enumerate(vectors)]}


FULL = [1.0] * DIM
MALFORMED: dict[str, tuple[object, str]] = {
    "NaN": (data(FULL, [math.nan] * DIM), "gives a number that is not finite (NaN or infinite) for 'b'"),
    "null": (data(FULL, [None] * DIM), "gives a number that is not finite (NaN or infinite) for 'b'"),
    "infinite as float32": (data([1e39] * DIM, FULL), "not finite (NaN or infinite) for 'a'"),
    "other dims": (data(FULL, [1.0]), "vectors that are not numbers, or not equally many a text"),
    "words": (data(FULL, ["x"] * DIM), "vectors that are not numbers, or not equally many a text"),
    "one number a text": (data(1.0, 2.0), "found vectors of shape (2,), expected (texts, dims)"),
    "nothing": (data([], []), "found vectors of shape (2, 0), expected (texts, dims)"),
    "too few": (data(FULL), "not an answer of protocol openai: found 1 entries for 2 texts"),
    "an index twice": ({"data": data(FULL, FULL)["data"][:1] * 2}, "expected the indices 0 to 1, each once"),
    "no index": ({"data": [{"embedding": FULL}] * 2}, "expected 'index' and 'embedding' in each entry"),
    "a list": ([FULL, FULL], "found a list, expected 'data' in it"),
    "other keys": ({"results": []}, "found keys results, expected 'data' in it"),
    "no list": ({"data": 3}, "found a int, expected a list"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_no_answer_is_refused(server: Server, name: str) -> None:
    content, expected = MALFORMED[name]
    server.faults = [instead(content)]
    with pytest.raises(UserError) as raised:
        encode(quick(server.judge()), ["a", "b"])
    assert str(raised.value).startswith(f"endpoint 'endpoint' ({server.url}/v1)/embeddings: ")
    assert str(raised.value).endswith(expected)
    assert len(server.asked) == 1


def test_dims_that_change_are_refused(server: Server) -> None:
    encoder = quick(server.judge())
    encode(encoder, ["a"])
    server.faults = [instead(data([1.0, 2.0]))]
    with pytest.raises(UserError, match=r"gives vectors of different dims: \[2, 6\]"):
        encode(encoder, ["a"])
    server.faults = [instead(data([0.0] * DIM))]
    with pytest.raises(UserError, match="gives a vector of zeros for 'a'"):
        encode(encoder, ["a"], normalize=True)

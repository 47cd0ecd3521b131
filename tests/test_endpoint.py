"""Vectors and scores from a local server that shuffles, refuses, breaks off, dies and comes back."""

import math
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import numpy as np
import pytest
from endpoint_server import (
    DIM,
    HOW,
    TEXTS,
    Fault,
    Server,
    broken_off,
    dropped,
    encode,
    no_json,
    quick,
    refusal,
    score_of,
    serving,
    status,
    vector_of,
)

from embedtrain.config.errors import UserError
from embedtrain.config.retrievers import EndpointJudge
from embedtrain.mining.endpoint import EndpointEncoder, open_encoder, open_scorer
from embedtrain.mining.endpoint.answers import seconds_in
from embedtrain.mining.endpoint.client import Client
from embedtrain.vectors import Recipe, encode_texts

SECRET = "sk-do-not-tell"


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as one:
        yield one


def unit(vector: list[float]) -> np.ndarray:
    """Of length 1, as float32."""
    return (np.array(vector) / np.linalg.norm(vector)).astype(np.float32)


@pytest.mark.parametrize("protocol", ["openai", "vllm", "tei"])
def test_vectors_come_in_the_order_asked(server: Server, protocol: str) -> None:
    encoder = open_encoder(server.judge(protocol, document_prompt="d: ", query_prompt="q: "))
    assert encoder.encode([], "query", **HOW, normalize=True).shape == (0, DIM)
    for side, prompt in (("query", "q: "), ("document", "d: ")):
        vectors = encoder.encode(TEXTS, side, **HOW, normalize=False)
        assert vectors.dtype == np.float32
        assert vectors.tolist() == [vector_of(prompt + text) for text in TEXTS]
        unit = encoder.encode(TEXTS, side, **HOW, normalize=True)
        slow = [[x / math.hypot(*row) for x in row] for row in vectors.tolist()]
        np.testing.assert_allclose(unit, slow, rtol=1e-6)
    assert encoder.dim == DIM
    assert max(len(server.asked[-1].body.get(name, [])) for name in ("input", "inputs")) <= 4


@pytest.mark.parametrize("protocol", ["vllm", "tei"])
def test_scores_come_in_the_order_asked(server: Server, protocol: str) -> None:
    judge = server.judge(protocol, gives="scores", query_prompt="q: ", document_prompt="d: ")
    pairs = [(query, text) for query in ("one", "two", "one") for text in TEXTS[:7]]
    scores = open_scorer(judge).score(pairs, 64)
    assert scores.dtype == np.float32
    assert scores.tolist() == [score_of(f"q: {query}", f"d: {text}") for query, text in pairs]
    assert len(server.asked) == 6  # 4 and 3 documents for each of three stretches of one query
    assert open_scorer(judge).score([], 64).shape == (0,)


def test_what_is_asked(server: Server) -> None:
    """Long texts are cut by the servers that can; scores are raw; one name of the model a request."""
    for protocol in ("openai", "vllm", "tei"):
        encode(quick(server.judge(protocol)), ["a", "b"])
    for protocol in ("vllm", "tei"):
        open_scorer(server.judge(protocol, gives="scores")).score([("q", "a"), ("q", "b")], 64)
    two = ["a", "b"]
    assert [(one.path, one.body) for one in server.asked] == [
        ("/v1/embeddings", {"model": "m", "input": two, "encoding_format": "float"}),
        (
            "/v1/embeddings",
            {"model": "m", "input": two, "encoding_format": "float", "truncate_prompt_tokens": -1},
        ),
        ("/embed", {"inputs": two, "truncate": True, "normalize": False}),
        (
            "/v1/rerank",
            {
                "model": "m",
                "query": "q",
                "documents": two,
                "truncate_prompt_tokens": -1,
                "use_activation": False,
            },
        ),
        ("/rerank", {"query": "q", "texts": two, "truncate": True, "raw_scores": True}),
    ]


FAULTS: dict[str, Fault] = {
    "too many": status(429),
    "overloaded": status(503),
    "an error inside": status(500),
    "half an answer": broken_off,
    "no answer": dropped,
    "a page": no_json,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failure_that_passes_changes_nothing(server: Server, fault: str) -> None:
    server.faults = [FAULTS[fault]] * 5
    assert encode(quick(server.judge())) == [vector_of(text) for text in TEXTS]
    assert len(server.asked) == 8 + 5
    assert server.faults == []


def test_it_waits_as_long_as_the_server_asks(server: Server) -> None:
    server.faults = [status(429, Retry_After="1")]
    encode(quick(server.judge(parallel_requests=1)), TEXTS[:1])
    first, second = server.asked
    assert 1.0 <= second.at - first.at < 3.0
    assert seconds_in("2.5") == 2.5
    assert seconds_in(formatdate(time.time() + 100, usegmt=True)) == pytest.approx(100, abs=2)
    assert seconds_in(formatdate(time.time() - 100, usegmt=True)) == 0.0
    assert seconds_in("soon") is None


def test_it_gives_up(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    judge = server.judge(max_retries=2, parallel_requests=1)
    server.faults = [status(503)] * 3
    expected = "endpoint 'endpoint' (URL/v1): no answer after 3 of 3 tries: HTTP 503 no 503."
    assert refusal(server, judge) == f"{expected} What is finished is kept: run it again later"
    assert len(server.asked) == 3
    assert capsys.readouterr().err.count("HTTP 503 no 503; again in 0.0 s") == 1
    server.faults = [status(429, Retry_After="3600")]
    assert "after 1 of 3 tries: HTTP 429 no 429; it asks to wait 3600 s. What" in refusal(server, judge)
    assert len(server.asked) == 4
    server.faults = [status(429, {"error": {"message": "pay", "code": "insufficient_quota"}})]
    assert refusal(server, judge) == "endpoint 'endpoint' (URL/v1)/embeddings: HTTP 429 pay"
    server.stop()
    try:
        assert "tries: [Errno 111] Connection refused. What" in refusal(server, judge)
    finally:
        server.start()
    server.seconds = 1.0
    slow = server.judge(max_retries=0, timeout_seconds=0.2, parallel_requests=1)
    assert "no answer after 1 of 1 tries: the answer broke off (TimeoutError)" in refusal(server, slow)


def test_a_server_that_dies_and_comes_back(server: Server) -> None:
    """Requests under way are lost, later ones refused; in the end nothing is missing."""
    server.seconds = 0.05
    encoder = EndpointEncoder(judge := server.judge(), Client(judge, first_wait_seconds=0.1))
    found: list[list[list[float]]] = []
    thread = threading.Thread(target=lambda: found.append(encode(encoder)))
    thread.start()
    while len(server.asked) < 3:
        time.sleep(0.005)
    server.faults = [dropped] * 2
    server.stop()
    answered = len(server.asked)
    time.sleep(0.3)
    server.start()
    thread.join(timeout=30)
    assert found == [[vector_of(text) for text in TEXTS]]
    assert 0 < answered < 8 < len(server.asked)


def test_a_store_goes_on_where_the_server_died(server: Server, tmp_path: Path) -> None:
    """A shard that was written is never asked for again."""
    recipe = Recipe("weights", "template", "document", None)
    texts = [f"{number} {'x' * 100}" for number in range(40)]

    def store(judge: EndpointJudge) -> np.ndarray:
        return encode_texts(quick(judge), texts, recipe, tmp_path / "store", tokens_per_batch=64)

    judge = server.judge(max_retries=0, parallel_requests=1)
    server.faults = [lambda handler: False] * 4 + [status(500)]
    with pytest.raises(UserError, match="run it again later"):
        store(judge)
    before = server.texts()
    server.asked.clear()
    np.testing.assert_array_equal(np.asarray(store(judge)), [unit(vector_of(text)) for text in texts])
    again = set(before) & set(server.texts())
    assert 0 < len(before) < len(texts)
    assert len(again) <= 8  # those of the one shard that was not whole
    assert set(before) | set(server.texts()) == {*texts, *again}
    server.asked.clear()
    store(judge)
    assert set(server.texts()) <= {"dimension"}


def test_no_more_requests_a_second_than_allowed(server: Server) -> None:
    for world in (1, 2):
        server.asked.clear()
        server.faults = [status(500)]  # the retry counts as well
        encode(quick(server.judge(requests_per_second=40.0), world))
        times = [one.at for one in server.asked]
        assert len(times) == 9
        assert times[-1] - times[0] >= 8 * world / 40 - 0.02


def test_no_more_requests_at_a_time_than_allowed(server: Server) -> None:
    for world, most in ((1, 4), (2, 2), (8, 1)):
        for seconds in (0.1, 0.5, 2):  # on a busy machine short requests may not meet
            server.seconds, server.most = seconds, 0
            encode(quick(server.judge(), world))
            assert server.most <= most
            if server.most == most:
                break
        assert server.most == most


def test_the_first_refusal_stops_the_others(server: Server) -> None:
    server.faults = [status(401), *[status(429, Retry_After="30")] * 3]
    start = time.monotonic()
    assert "HTTP 401" in refusal(server, server.judge())
    assert time.monotonic() - start < 5
    assert len(server.asked) <= 4


def test_the_key_is_sent_and_never_shown(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    judge = server.judge(key_variable="TINY_KEY", max_retries=1, parallel_requests=1)
    monkeypatch.delenv("TINY_KEY", raising=False)
    for _ in range(2):
        with pytest.raises(UserError) as raised:
            open_encoder(judge)
        expected = ": the environment variable TINY_KEY is not set; it must hold the key"
        assert str(raised.value) == f"endpoint 'endpoint' ({server.url}/v1){expected}"
        monkeypatch.setenv("TINY_KEY", " ")
    monkeypatch.setenv("TINY_KEY", f"{SECRET}\nX-More: y")
    with pytest.raises(UserError, match="holds no key: it has spaces") as raised:
        open_encoder(judge)
    shown = [str(raised.value)]
    monkeypatch.setenv("TINY_KEY", f"{SECRET}\n")
    encoder = quick(judge)
    encode(encoder)
    assert {one.key for one in server.asked} == {f"Bearer {SECRET}"}
    echo = {"error": {"message": f"bad key {SECRET}"}}
    for faults in ([status(401, echo)], [status(503, echo)] * 2, [status(400, echo)]):
        server.faults = list(faults)
        shown.append(refusal(server, judge))
    assert "bad key [key]; the key is read from the environment variable TINY_KEY" in shown[1]
    shown += [repr(encoder), repr(vars(encoder)), repr(vars(encoder.client)), judge.model_dump_json()]
    shown += [encoder.weights, encoder.template, *capsys.readouterr()]
    assert not [text for text in shown if SECRET in text]


def test_the_key_goes_to_no_other_address(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINY_KEY", SECRET)
    with serving() as other:
        for code in (301, 302, 307, 308):
            server.faults = [status(code, Location=f"{other.url}/v1/embeddings")]
            text = refusal(server, server.judge(key_variable="TINY_KEY", parallel_requests=1))
            assert f"HTTP {code}" in text
            assert "into url" in text
        assert other.asked == []


def test_a_url_with_a_password_is_refused(server: Server) -> None:
    for url in ("http://me:sesame@127.0.0.1:1/v1", "http://me:sesame@[1/v1"):
        with pytest.raises(UserError, match="url holds a password, and would be stored") as raised:
            open_encoder(server.judge(url=url))
        assert "sesame" not in str(raised.value)
    for url in ("http://", "http://host:port/v1", "http://two words/v1"):
        with pytest.raises(UserError, match=r"endpoint 'endpoint': url '.*' names no server"):
            open_encoder(server.judge(url=url))


def test_vectors_of_another_model_have_another_name(server: Server) -> None:
    """TEI and vLLM say what they run; the hash follows. A server that does not say is no error."""
    for protocol in ("tei", "vllm"):
        judge = server.judge(protocol)
        before = quick(judge).weights
        assert quick(judge).weights == before
        server.served["model_id"] += " and another"
        assert quick(judge).weights != before
    silent = server.judge("tei", url=f"{server.url}/behind/a/proxy")
    assert quick(silent).weights == quick(silent).weights != quick(server.judge("tei")).weights
    plain = quick(server.judge())
    assert quick(server.judge(model="n")).weights != plain.weights
    assert quick(server.judge(document_prompt="d")).template != plain.template
    assert quick(server.judge(parallel_requests=1)).weights == plain.weights

"""A local server that speaks as OpenAI, TEI and vLLM do, and fails when told to."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from embedtrain.config.errors import UserError
from embedtrain.config.retrievers import EndpointJudge
from embedtrain.mining.endpoint import EndpointEncoder
from embedtrain.mining.endpoint.client import Client

DIM = 6
TEXTS = [f"text {number}" for number in range(30)]
HOW = {"instruction": "not read", "max_tokens": None, "tokens_per_batch": 64}
Fault = Callable[["Handler"], bool]
"""Answers a request in its own way; False lets the true answer follow."""


def vector_of(text: str) -> list[float]:
    """Six numbers that float32 holds exactly, of the text alone."""
    digest = blake2b(text.encode(), digest_size=2 * DIM).digest()
    return [int(number) / 256 for number in np.frombuffer(digest, np.int16)]


def score_of(query: str, document: str) -> float:
    """A score below and above 0, of the pair alone."""
    return vector_of(f"{query}\n{document}")[0]


@dataclass
class Asked:
    """One request as the server saw it."""

    path: str
    body: dict[str, Any]
    key: str | None
    at: float = field(default_factory=time.monotonic)


class Server:
    """Starts, stops and starts again on one port; `faults` are taken by the next requests, one each."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.faults: list[Fault] = []
        self.served: dict[str, Any] = {"model_id": "tiny", "model_sha": "abc", "model_dtype": "float32"}
        self.seconds = 0.0  # that an answer takes
        self.now, self.most = 0, 0  # requests under way
        self.lock = threading.Lock()
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen; the port stays the same from the first time on."""
        self.http = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.http.owner = self  # type: ignore[attr-defined]
        self.port = self.http.server_address[1]
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """Refuse every connection."""
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()

    def judge(self, protocol: str = "openai", **changes: Any) -> EndpointJudge:
        """A judge that asks this server."""
        base = {"kind": "endpoint", "protocol": protocol, "texts_per_request": 4}
        base |= {"url": self.url} if protocol == "tei" else {"url": f"{self.url}/v1", "model": "m"}
        return EndpointJudge.model_validate(base | changes)

    def texts(self) -> list[str]:
        """All texts of all requests."""
        names = ("input", "inputs", "documents", "texts")
        return [text for one in self.asked for name in names for text in one.body.get(name, [])]


@contextmanager
def serving() -> Iterator[Server]:
    """A server that is gone afterwards."""
    server = Server()
    try:
        yield server
    finally:
        server.stop()


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        owner = self.server.owner
        owner.asked.append(Asked(self.path, {}, self.headers["Authorization"]))
        if owner.faults and owner.faults.pop(0)(self):
            return
        models = {"data": [{"id": "other", "root": "x"}, {"id": "m", "root": owner.served["model_id"]}]}
        known = {"/info": owner.served, "/v1/models": models}
        self.answer(200 if self.path in known else 404, known.get(self.path, {"error": "no such page"}))

    def do_POST(self) -> None:
        owner = self.server.owner
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with owner.lock:
            owner.asked.append(Asked(self.path, body, self.headers["Authorization"]))
            owner.now += 1
            owner.most = max(owner.most, owner.now)
            fault = owner.faults.pop(0) if owner.faults else None
        try:
            time.sleep(owner.seconds)
        finally:
            with owner.lock:
                owner.now -= 1  # before the answer, which the next request may follow at once
        if fault is None or not fault(self):
            found = ANSWERS.get(self.path)
            self.answer(200 if found else 404, found(body) if found else {"detail": "Not Found"})

    def answer(self, status: int, content: object, **headers: str) -> None:
        """A whole answer."""
        encoded = json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(encoded)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(encoded)


def shuffled(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """In an order that is not the asked one."""
    return entries[::-1] if len(entries) < 3 else [*entries[1::2], *entries[0::2]]


def embeddings(body: dict[str, Any]) -> dict[str, Any]:
    entries = [{"index": n, "embedding": vector_of(text)} for n, text in enumerate(body["input"])]
    return {"object": "list", "model": body["model"], "data": shuffled(entries)}


def embed(body: dict[str, Any]) -> list[list[float]]:
    return [vector_of(text) for text in body["inputs"]]


def rank(body: dict[str, Any]) -> list[dict[str, Any]]:
    scores = [{"index": n, "score": score_of(body["query"], t)} for n, t in enumerate(body["texts"])]
    return sorted(scores, key=lambda entry: -entry["score"])


def rerank(body: dict[str, Any]) -> dict[str, Any]:
    ranks = rank({"query": body["query"], "texts": body["documents"]})
    return {
        "id": "x",
        "model": body["model"],
        "results": [{"index": one["index"], "relevance_score": one["score"]} for one in ranks],
    }


ANSWERS: dict[str, Callable[[dict[str, Any]], object]] = {
    "/v1/embeddings": embeddings,
    "/embed": embed,
    "/rerank": rank,
    "/v1/rerank": rerank,
}


def status(code: int, content: object = None, **headers: str) -> Fault:
    """A refusal."""

    def refuse(handler: Handler) -> bool:
        handler.answer(code, {"error": {"message": f"no {code}"}} if content is None else content, **headers)
        return True

    return refuse


def instead(content: object) -> Fault:
    """Another answer, as if all were well."""
    return status(200, content)


def broken_off(handler: Handler) -> bool:
    """Half an answer."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"data": [')
    handler.close_connection = True
    return True


def dropped(handler: Handler) -> bool:
    """No answer at all."""
    handler.close_connection = True
    return True


def no_json(handler: Handler) -> bool:
    """The page of something that is no such server."""
    handler.send_response(200)
    handler.send_header("Content-Length", "6")
    handler.end_headers()
    handler.wfile.write(b"<html>")
    return True


def quick(judge: EndpointJudge, world: int = 1) -> EndpointEncoder:
    """An encoder whose first retry comes soon."""
    return EndpointEncoder(judge, Client(judge, world=world, first_wait_seconds=0.02))


def encode(encoder: EndpointEncoder, texts: list[str] = TEXTS, normalize: bool = False) -> list[list[float]]:
    return encoder.encode(texts, "document", **HOW, normalize=normalize).tolist()


def refusal(server: Server, judge: EndpointJudge) -> str:
    with pytest.raises(UserError) as raised:
        encode(quick(judge))
    return str(raised.value).replace(server.url, "URL")

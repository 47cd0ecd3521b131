"""Asks a server: several requests at a time, not too many a second, and again where one fails."""

import json
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

import numpy as np

from embedtrain import __version__
from embedtrain.config.errors import UserError
from embedtrain.config.retrievers import EndpointJudge
from embedtrain.mining.endpoint.answers import Later, Refused, explain, later, read_numbers
from embedtrain.mining.endpoint.key import read_key
from embedtrain.mining.endpoint.protocols import SERVED, Batch, title, wire_of
from embedtrain.show.progress import LINE_EVERY_SECONDS

LONGEST_WAIT_SECONDS = 60.0
LONGEST_ASKED_SECONDS = 600.0


class NoRedirect(HTTPRedirectHandler):
    """Follows nothing: another address must not be given the key."""

    def redirect_request(self, *args: Any) -> None:
        """Let the redirect be an error."""


class Stopped(Exception):
    """Another request has failed for good."""


class Throttle:
    """Spreads requests over time, for all threads together."""

    def __init__(self, per_second: float | None) -> None:
        """`per_second` requests at most; None for no limit."""
        self.gap = 1 / per_second if per_second else 0.0
        self.next = 0.0
        self.lock = threading.Lock()

    def take(self) -> float:
        """Seconds until the next request may go; it is counted as gone."""
        with self.lock:
            now = time.monotonic()
            at = max(now, self.next)
            self.next = at + self.gap
            return at - now

    def hold(self, seconds: float) -> None:
        """Let none go for so long."""
        with self.lock:
            self.next = max(self.next, time.monotonic() + seconds)


class Client:
    """One judge's server. `world` processes share its limits; a first retry waits `first_wait_seconds`."""

    def __init__(self, judge: EndpointJudge, *, world: int = 1, first_wait_seconds: float = 1.0) -> None:
        """Read the key; UserError where there is none. Nothing is sent."""
        check_url(judge)
        self.judge, self.key = judge, read_key(judge)
        self.first_wait_seconds = first_wait_seconds
        rate = judge.requests_per_second
        self.throttle = Throttle(rate and rate / world)
        self.threads = max(1, judge.parallel_requests // world)
        self.opener = build_opener(NoRedirect)
        self.stopped = threading.Event()
        self.spoke = -LINE_EVERY_SECONDS

    def ask_all(self, batches: Sequence[Batch]) -> list[np.ndarray]:
        """float32 numbers of each batch, a vector or a score a text, in order.

        The first request that fails for good stops the others, and its UserError is raised.
        """
        self.stopped.clear()
        with ThreadPoolExecutor(self.threads) as pool:
            futures = [pool.submit(self.ask, batch) for batch in batches]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
                raise_first(futures)
            except BaseException:
                self.stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [future.result() for future in futures]

    def ask(self, batch: Batch) -> np.ndarray:
        """float32 numbers of one batch: (texts, dims) or (texts,)."""
        wire = wire_of(self.judge)
        try:
            answer = self.send(wire.path, batch, json.dumps(wire.body(self.judge.model, batch)).encode())
            return read_numbers(self.judge, wire, batch, answer)
        except UserError:
            self.stopped.set()
            raise

    def served(self) -> object:
        """What the server says of its model; None where it says nothing."""
        if self.judge.protocol not in SERVED:
            return None
        path, read = SERVED[self.judge.protocol]
        try:
            return read(self.send(path, Batch([])), self.judge.model)
        except (Refused, LookupError, TypeError, AttributeError):
            return None

    def send(self, path: str, batch: Batch, body: bytes | None = None) -> Any:
        """The JSON answer to a body, or to a plain question; as many tries as the judge has patience for."""
        tries = self.judge.max_retries + 1
        for number in range(tries):
            self.pause(self.throttle.take())
            try:
                return self.send_once(path, batch, body)
            except Later as failure:
                reason, asked = failure, failure.seconds or 0.0
                if asked > LONGEST_ASKED_SECONDS or number + 1 == tries:
                    break
                seconds = max(asked, min(self.first_wait_seconds * 2**number, LONGEST_WAIT_SECONDS))
                self.speak(f"{reason}; again in {seconds:.1f} s")
                self.throttle.hold(seconds)
        wish = f"; it asks to wait {asked:.0f} s" if asked else ""
        raise UserError(
            f"{title(self.judge)}: no answer after {number + 1} of {tries} tries: {reason}{wish}. "
            "What is finished is kept: run it again later"
        )

    def send_once(self, path: str, batch: Batch, body: bytes | None) -> Any:
        """The JSON answer; Later where another try may help, UserError where none does."""
        request = Request(self.judge.url.rstrip("/") + path, data=body, headers=self.headers())
        try:
            with self.opener.open(request, timeout=self.judge.timeout_seconds) as response:
                content = response.read()
            return json.loads(content)
        except HTTPError as error:
            with error:
                text = self.key.hide(read_body(error))
            if (failure := later(error.code, text, error.headers.get("Retry-After"))) is not None:
                raise failure from None
            raise Refused(explain(self.judge, path, batch, error.code, text)) from None
        except URLError as error:
            raise Later(f"{error.reason}") from None
        except (OSError, HTTPException) as error:
            raise Later(f"the answer broke off ({type(error).__name__})") from None
        except ValueError:
            raise Later("the answer is no whole JSON") from None

    def headers(self) -> dict[str, str]:
        """Those of every request."""
        about = {"Content-Type": "application/json", "Accept": "application/json"}
        return about | {"User-Agent": f"embedtrain/{__version__}"} | self.key.headers()

    def speak(self, reason: str) -> None:
        """Tell why nothing moves, on stderr, seldom."""
        now = time.monotonic()
        if now - self.spoke >= LINE_EVERY_SECONDS:
            self.spoke = now
            print(f"{title(self.judge)}: {reason}", file=sys.stderr, flush=True)

    def pause(self, seconds: float) -> None:
        """Wait, unless another request has failed for good."""
        if self.stopped.wait(seconds):
            raise Stopped


def check_url(judge: EndpointJudge) -> None:
    """UserError where the url holds a password, which would be stored with the run, or names no server."""
    if "@" in judge.url:
        raise UserError(
            f"endpoint '{judge.column}': url holds a password, and would be stored; "
            "put the key into an environment variable and name that in key_variable"
        )
    try:
        parts = urlsplit(judge.url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or any(character.isspace() for character in judge.url):
        raise UserError(f"endpoint '{judge.column}': url {judge.url!r} names no server")


def raise_first(futures: Sequence[Future[Any]]) -> None:
    """Raise why a request failed, if one did; not of those that it stopped."""
    errors = [future.exception() for future in futures if future.done()]
    for error in errors:
        if error is not None and not isinstance(error, Stopped):
            raise error


def read_body(error: HTTPError) -> str:
    """What the server says of its refusal, as far as it comes."""
    try:
        return error.read(100_000).decode(errors="replace")
    except (OSError, HTTPException):
        return ""

"""A local stand-in for a model hub: what huggingface_hub calls to upload, and the bytes that arrive."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

LARGE = (".safetensors", ".onnx", ".data")
OWNER = "someone"


@dataclass
class Hub:
    """What it was asked and what it holds; `refusals` answer paths that hold a piece with a status."""

    token: str = "hf_secret"
    repos: dict[str, dict[str, Any]] = field(default_factory=dict)
    branches: dict[str, set[str]] = field(default_factory=dict)
    files: dict[tuple[str, str], dict[str, bytes]] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    refusals: dict[str, int] = field(default_factory=dict)
    address: str = ""


class Handler(BaseHTTPRequestHandler):
    """One request."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        """Be quiet."""

    def body(self) -> bytes:
        """What was sent."""
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def answer(self, value: object, status: int = 200) -> None:
        """JSON."""
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        """Who is asking."""
        self.take("GET")

    def do_POST(self) -> None:
        """All the rest."""
        self.take("POST")

    def do_PUT(self) -> None:
        """An object of the large file storage; its address carries its own right."""
        oid = self.path.rpartition("/")[2]
        self.hub.asked.append(("PUT", "/objects"))
        content = self.body()
        if status := self.hub.refusals.get("/objects/"):
            return self.answer({"error": "You may not do that."}, status)
        assert hashlib.sha256(content).hexdigest() == oid
        self.hub.objects[oid] = content
        return self.answer({})

    def take(self, method: str) -> None:
        """Route a request of the API."""
        body = self.body()
        path = unquote(self.path.partition("?")[0])
        self.hub.asked.append((method, path))
        if self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            return self.answer({"error": "Invalid credentials"}, 401)
        for piece, status in self.hub.refusals.items():
            if piece in path:
                return self.answer({"error": "You may not do that."}, status)
        if path == "/api/whoami-v2":
            return self.answer({"name": OWNER, "type": "user"})
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if path == "/api/validate-yaml":
            return self.answer({"warnings": [], "errors": []})
        if path.endswith(".git/info/lfs/objects/batch"):
            return self.batch(json.loads(body))
        repo, _, rest = path.removeprefix("/api/models/").partition("/preupload/")
        if rest:
            return self.preupload(json.loads(body))
        repo, _, rest = path.removeprefix("/api/models/").partition("/branch/")
        if rest:
            self.hub.branches.setdefault(repo, {"main"}).add(rest)
            return self.answer({})
        repo, _, rest = path.removeprefix("/api/models/").partition("/commit/")
        if rest:
            return self.commit(repo, rest, body)
        return self.answer({"error": f"no such page: {path}"}, 404)

    def create(self, asked: dict[str, Any]) -> None:
        """A repository, once."""
        name = f"{asked.get('organization') or OWNER}/{asked['name']}"
        if name in self.hub.repos:
            told = {"error": "You already created this model repo", "url": f"{self.hub.address}/{name}"}
            return self.answer(told, 409)
        self.hub.repos[name] = asked
        return self.answer({"url": f"{self.hub.address}/{name}", "name": name})

    def preupload(self, asked: dict[str, Any]) -> None:
        """Which files are large."""
        modes = {f["path"]: "lfs" if f["path"].endswith(LARGE) else "regular" for f in asked["files"]}
        files = [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes.items()]
        self.answer({"files": files})

    def batch(self, asked: dict[str, Any]) -> None:
        """Where large files go."""
        objects = [
            {**o, "actions": {"upload": {"href": f"{self.hub.address}/objects/{o['oid']}"}}}
            for o in asked["objects"]
        ]
        self.answer({"transfer": "basic", "objects": objects})

    def commit(self, repo: str, revision: str, body: bytes) -> None:
        """Files by name: small ones in the request, large ones by their hash."""
        kept = self.hub.files.setdefault((repo, revision), {})
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                kept[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                kept[value["path"]] = self.hub.objects[value["oid"]]
        self.answer({"commitUrl": f"{self.hub.address}/{repo}/commit/abc", "commitOid": "a" * 40})


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub on a free port of this machine."""
    hub = Hub()
    handler = type("BoundHandler", (Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

"""An endpoint on loopback, in the interface of OpenAI's, that answers well, and on purpose badly where a test asks for it."""

from __future__ import annotations

import json
import re
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "sk-loopback-5ecret"
QUESTION = {"question": "What can you see in this picture?"}


def well(body: dict) -> str:
    """What a good model replies to the prompts of svco data rewrite: the captions, in full sentences."""
    user = body["messages"][-1]["content"]
    user = user if isinstance(user, str) else user[-1]["text"]
    if "Write one natural question" in user:
        return json.dumps(QUESTION)
    captions = re.search(r"First picture: (.*)\n\s*Second picture: (.*)", user).groups()
    return json.dumps({"answers": [f"There is {caption} in it." for caption in captions]})


class Server(ThreadingHTTPServer):
    """``misbehave``: how the next requests are treated, one each, then all of them well: ``429``, ``500``, ``slow``,
    ``malformed``, ``html``, ``cut``, ``empty``. ``say``: what it replies."""

    daemon_threads = True

    def __init__(self, say: Callable[[dict], str] = well, seconds: float = 0.0):
        super().__init__(("127.0.0.1", 0), Handler)
        self.say, self.seconds = say, seconds
        self.misbehave: list[str] = []
        self.asked: Counter[str] = Counter()
        self.bodies: list[dict] = []
        self.most_at_once = self.now = 0
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict] = {}
        self.ready = True
        self.lock = threading.Lock()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def __enter__(self) -> Server:
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address) -> None:
        """A client that was killed is no news."""


def completion(body: dict, text: str) -> dict:
    return {
        "id": "x",
        "object": "chat.completion",
        "model": f"{body['model']}-as-served",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
    }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_) -> None:
        pass

    def send(self, status: int, data: bytes | dict, kind="application/json", length=None, **headers) -> None:
        data = json.dumps(data).encode() if isinstance(data, dict) else data
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": length or len(data), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Authorization"] != f"Bearer {KEY}":
            self.send(401, {"error": {"message": f"Incorrect API key provided: {self.headers['Authorization'][7:]}."}})
        elif self.path == "/v1/chat/completions":
            self.chat(json.loads(data))
        elif self.path == "/v1/files":
            name = f"file-{uuid.uuid4().hex[:8]}"
            start = data.index(b'filename="requests.jsonl"')
            self.server.files[name] = data[data.index(b"\r\n\r\n", start) + 4 : data.rindex(b"\r\n--")]
            self.send(
                200, {"id": name, "object": "file", "bytes": 1, "created_at": 1, "filename": "r", "purpose": "batch"}
            )
        else:
            self.batch(json.loads(data)["input_file_id"])

    def do_GET(self) -> None:
        name = self.path.removesuffix("/content").rpartition("/")[2]
        if self.path.startswith("/v1/files/"):
            self.send(200, self.server.files[name], "application/octet-stream")
        else:
            status = "completed" if self.server.ready else "in_progress"
            self.send(200, self.server.batches[name] | {"status": status})

    def chat(self, body: dict) -> None:
        server = self.server
        with server.lock:
            server.asked[json.dumps(body, sort_keys=True)] += 1
            server.bodies.append(body)
            server.now += 1
            server.most_at_once = max(server.most_at_once, server.now)
            how = server.misbehave.pop(0) if server.misbehave else "well"
        try:
            time.sleep(server.seconds)
            self.answer(body, how)
        finally:
            with server.lock:
                server.now -= 1

    def answer(self, body: dict, how: str) -> None:
        good = json.dumps(completion(body, self.server.say(body))).encode()
        if how == "429":
            self.send(429, {"error": {"message": "Slow down."}}, Retry_After="0.2")
        elif how in ("400", "404", "500"):
            self.send(int(how), {"error": {"message": f"That is a {how}."}})
        elif how == "slow":
            time.sleep(1.5)
            self.send(200, good)
        elif how == "html":
            self.send(200, b"<html><body>Sign in to the hotel's network</body></html>", "text/html")
        elif how == "cut":
            self.send(200, good[: len(good) // 2], length=len(good))
            self.close_connection = True
        else:
            self.send(200, {"well": good, "malformed": good[:-9], "empty": b"{}"}[how])

    def batch(self, name: str) -> None:
        """Answered at once, the last request of each with an error."""
        rows = [json.loads(line) for line in self.server.files[name].splitlines()]
        good, bad = [], []
        for row in rows:
            told = {"status_code": 200, "body": completion(row["body"], self.server.say(row["body"]))}
            if row is rows[-1] and self.server.misbehave:
                self.server.misbehave.pop(0)
                told = {"status_code": 500, "body": {"error": {"message": "It failed."}}}
                bad.append({"custom_id": row["custom_id"], "response": told, "error": None})
            else:
                good.append({"custom_id": row["custom_id"], "response": told, "error": None})
        batch = f"batch-{uuid.uuid4().hex[:8]}"
        names = {"output_file_id": good, "error_file_id": bad}
        found = {
            "id": batch,
            "object": "batch",
            "endpoint": "/v1/chat/completions",
            "input_file_id": name,
            "created_at": 1,
        }
        found["completion_window"] = "24h"
        for field, lines in names.items():
            if lines:
                found[field] = f"{field}-{batch}"
                self.server.files[found[field]] = "\n".join(map(json.dumps, lines)).encode()
        self.server.batches[batch] = found
        self.send(200, found | {"status": "validating"})

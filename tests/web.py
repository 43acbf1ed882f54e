"""A web server on this machine that misbehaves on purpose."""

import http.server
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Page:
    """What the server has under one path."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None
    """The length that is told, in place of the body's; negative: none is."""
    failures: int = 0
    """So many first GETs are answered with ``failure``."""
    failure: "Page | None" = None
    """None: 503."""
    head: "Page | None" = None
    """The answer to HEAD; None: as to GET."""
    pause: float = 0.0
    """Seconds of silence in the middle of the body."""


class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self):
        self.server.asked.append((self.command, self.path))
        page = self.server.pages.get(self.path.partition("?")[0], Page(b"", 404))
        if self.command == "GET" and page.failures:
            page.failures -= 1
            page = page.failure or Page(b"", 503)
        elif self.command == "HEAD":
            page = page.head or page
        self.send_response(page.status)
        for name, value in page.headers.items():
            self.send_header(name, value)
        length = len(page.body) if page.length is None else page.length
        if length >= 0:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command == "GET":
            half = len(page.body) // 2 if page.pause else 0
            self.wfile.write(page.body[:half])
            time.sleep(page.pause)
            self.wfile.write(page.body[half:])

    do_GET = do_HEAD = answer  # noqa: N815

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    """``pages`` by path, ``asked`` for as (method, path), ``url`` of its root."""

    def handle_error(self, *_):
        pass  # a client that hung up


@contextmanager
def serving():
    """A Server until the block ends."""
    server = Server(("127.0.0.1", 0), Handler)
    server.pages, server.asked, server.url = {}, [], f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def downloads(web):
    """The paths of the GETs so far."""
    return [path for method, path in web.asked if method == "GET"]


def files(cache):
    """Names of all files below ``cache``, but for the mark of this process, which is there as long as it lives."""
    return sorted(path.name for path in cache.rglob("*") if path.is_file() and path.parent.name != "users")

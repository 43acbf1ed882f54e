"""Object stores on this machine that misbehave on purpose: S3 as moto serves it, and one in memory that is always there."""

import hashlib
import logging
import os
import threading
from contextlib import contextmanager
from errno import ENOSPC

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

ANSWERS = {
    "busy": (503, "ServiceUnavailable", "Please try again."),
    "denied": (403, "AccessDenied", "Access Denied"),
    "full": (507, "XMinioStorageFull", "Storage backend has reached its minimum free drive threshold."),
}


class Store:
    """``writes`` are the names of files that came whole, in order. ``at(name, what, times)``: the next ``times`` uploads of
    ``name`` ("*": any) meet ``what``: "busy", "denied", "full", "cut" in the middle, or a function that is called before."""

    def __init__(self, url):
        self.url, self.writes, self._faults = url, [], []

    def at(self, name, what, times=1):
        self._faults.append([name, what, times])

    def fault(self, name):
        """What the upload of ``name`` meets now."""
        for fault in self._faults:
            if fault[0] in (name, "*") and fault[2] > 0:
                fault[2] -= 1
                if not callable(fault[1]):
                    return fault[1]
                fault[1]()
        return None

    def heal(self):
        self._faults.clear()

    @property
    def filesystem(self):
        filesystem = fsspec.filesystem(self.url.partition("://")[0])
        filesystem.invalidate_cache()
        return filesystem

    def files(self, folder):
        """Name -> bytes of the files in the folder of this URL."""
        place = folder.partition("://")[2]
        found = self.filesystem.find(place) if self.filesystem.exists(place) else []
        return {name.rpartition("/")[2]: self.filesystem.cat_file(name) for name in found}


class Memory(MemoryFileSystem):
    """``flaky://``: files are written in place, as sftp does it, so that a cut leaves a part; ETags are MD5s."""

    protocol = "flaky"
    store: dict = {}
    pseudo_dirs = [""]
    playing = None

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).removeprefix("flaky://"))

    def put_file(self, lpath, rpath, **options):
        name = rpath.rpartition("/")[2]
        fault = self.playing.fault(name)
        if fault == "full":
            raise OSError(ENOSPC, os.strerror(ENOSPC))
        if fault == "denied":
            raise PermissionError("Access Denied")
        if fault == "busy":
            raise ConnectionError("the server answers 503")
        if not rpath.strip("/").startswith("bucket/"):
            raise FileNotFoundError(rpath)
        super().put_file(lpath, rpath, **options)
        if fault == "cut":
            data = self.cat_file(rpath)
            self.pipe_file(rpath, data[: len(data) // 2])
            raise ConnectionResetError("Connection reset by peer")
        self.playing.writes.append(name)

    def info(self, path, **options):
        found = super().info(path, **options)
        return found | {"ETag": hashlib.md5(self.cat_file(path)).hexdigest()} if found["type"] == "file" else found

    def ls(self, path, detail=True, **options):
        found = super().ls(path, detail=True, **options)
        return [self.info(entry["name"]) for entry in found] if detail else [entry["name"] for entry in found]


@contextmanager
def memory():
    fsspec.register_implementation("flaky", "stores.Memory", clobber=True)
    Memory.store.clear()
    Memory.pseudo_dirs[:] = [""]
    Memory.playing = Store("flaky://bucket")
    yield Memory.playing


class Served:
    """moto's S3 with the faults of a Store in front."""

    def __init__(self, application, store):
        self.application, self.store = application, store

    def __call__(self, environ, start_response):
        name = environ["PATH_INFO"].rpartition("/")[2]
        whole_file = environ["REQUEST_METHOD"] == "PUT" and "." in name and "partNumber" not in environ["QUERY_STRING"]
        fault = self.store.fault(name) if whole_file else None
        if fault == "cut":
            environ["wsgi.input"].read(1000)
            environ["werkzeug.socket"].shutdown(2)
            return []
        if fault:
            environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
            status, code, text = ANSWERS[fault]
            start_response(f"{status} {code}", [("Content-Type", "application/xml")])
            return [f"<Error><Code>{code}</Code><Message>{text}</Message></Error>".encode()]
        if environ["REQUEST_METHOD"] == "GET":
            self.store.reads.append(name)
        answer = list(self.application(environ, start_response))
        if whole_file:
            self.store.writes.append(name)
        return answer


@contextmanager
def s3(monkeypatch):
    """As botocore's own variables find it; the driver's retries are short."""
    for package in ("s3fs", "moto", "flask_cors"):
        pytest.importorskip(package, reason=f"NOT TESTED: needs {package}: pip install 'svco[test]'")
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from s3fs import S3FileSystem
    from werkzeug.serving import make_server

    monkeypatch.setattr(S3FileSystem, "retries", 1)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    store = Store("s3://bucket")
    store.reads = []
    server = make_server("127.0.0.1", 0, Served(DomainDispatcherApplication(create_backend_app), store), threaded=True)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "1",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    fsspec.filesystem("s3").clear_instance_cache()
    fsspec.filesystem("s3").mkdir("bucket")
    yield store
    fsspec.filesystem("s3").clear_instance_cache()
    server.shutdown()
    server.server_close()
    from moto.s3.models import s3_backends

    s3_backends.reset()

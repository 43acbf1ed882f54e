"""A Hugging Face hub on this machine: as much of its interface as an upload of a model needs, without Xet."""

import base64
import hashlib
import http.server
import json
import re
import threading
from contextlib import contextmanager


class Handler(http.server.BaseHTTPRequestHandler):
    """``server.repos``: repo -> {"private": bool, "files": {path: bytes}}; ``server.refuse``: {path's end: status}."""

    def do_POST(self):  # noqa: N802
        body = self.rfile.read(int(self.headers["Content-Length"]))
        hub = self.server
        hub.asked.append(self.path)
        refused = next((status for end, status in hub.refuse.items() if self.path.endswith(end)), None)
        if self.headers.get("Authorization") != f"Bearer {hub.token}":
            return self.tell({"error": "Invalid credentials"}, 401)
        if refused:
            return self.tell({"error": "refused on purpose"}, refused)
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked.get('organization')}/{asked['name']}"
            there = repo in hub.repos
            private = asked.get("private") or asked.get("visibility") == "private"
            hub.repos.setdefault(repo, {"private": bool(private), "files": {}})
            return self.tell({"url": f"{hub.url}/{repo}", "name": repo}, 409 if there else 200)
        if self.path == "/api/validate-yaml":
            return self.tell({"errors": [], "warnings": []})
        if found := re.fullmatch(r"/api/models/(.+)/preupload/main", self.path):
            mode = {True: "lfs", False: "regular"}
            files = json.loads(body)["files"]
            told = [
                {"path": f["path"], "uploadMode": mode[f["path"].endswith(".safetensors")], "shouldIgnore": False}
                for f in files
            ]
            return self.tell({"files": told})
        if found := re.fullmatch(r"/(.+)\.git/info/lfs/objects/batch", self.path):
            return self.tell({"transfer": "basic", "objects": [self.lfs(item) for item in json.loads(body)["objects"]]})
        if found := re.fullmatch(r"/api/models/(.+)/commit/main", self.path):
            self.commit(hub.repos[found[1]]["files"], [json.loads(line) for line in body.splitlines()])
            address = f"{hub.url}/{found[1]}/commit/{'0' * 40}"
            return self.tell({"success": True, "commitOid": "0" * 40, "commitUrl": address, "hookOutput": ""})
        return self.tell({"error": f"{self.path} is not known here"}, 404)

    def lfs(self, item):
        told = {"oid": item["oid"], "size": item["size"]}
        if item["oid"] not in self.server.objects:
            told["actions"] = {"upload": {"href": f"{self.server.url}/lfs/{item['oid']}"}}
        return told

    def commit(self, files, lines):
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]

    def do_PUT(self):  # noqa: N802
        data = self.rfile.read(int(self.headers["Content-Length"]))
        oid = self.path.removeprefix("/lfs/")
        assert hashlib.sha256(data).hexdigest() == oid
        self.server.objects[oid] = data
        self.server.asked.append("PUT")
        self.tell({})

    def do_GET(self):  # noqa: N802
        repo = self.path.removeprefix("/api/models/").split("/revision")[0]
        known = repo in self.server.repos
        self.tell({"id": repo, "sha": "0" * 40, "siblings": []} if known else {"error": "none"}, 200 if known else 404)

    def tell(self, what, status=200):
        body = json.dumps(what).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def loopback_hub(token="hf_of_the_test"):
    """The hub, while the block runs; ``url``, ``repos``, ``asked``, ``refuse``."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{server.server_port}"
    server.token, server.repos, server.objects, server.asked, server.refuse = token, {}, {}, [], {}
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()

"""`transformers serve` of a model folder on this machine, as a model card says it."""

import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager

from launch import ENVIRONMENT, free_port


@contextmanager
def served(model, log, cwd=None):
    """Serves ``model`` while the block runs: the address of its interface. 15 s to start."""
    port = free_port()
    line = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(model), "--device", "cpu"]
    line += ["--host", "127.0.0.1", "--port", str(port)]
    with log.open("w") as stream:
        environment = ENVIRONMENT | {"HF_HUB_DISABLE_UPDATE_CHECK": "1"}
        process = subprocess.Popen(line, stdout=stream, stderr=stream, env=environment, cwd=cwd)
    try:
        deadline = time.monotonic() + 180
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                    assert answer.status == 200
                    break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
                time.sleep(0.3)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()

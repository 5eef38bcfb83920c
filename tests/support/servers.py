"""Starting a server as people do, in a process of its own, and asking it; made-up servers here."""

import json
import os
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def fetched(port, path, body=None):
    """Status of a request, and its JSON or text."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request) as answer:
            text = answer.read().decode()
            return answer.status, json.loads(text) if text else ""
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@contextmanager
def running(command, port, folder):
    """A server that is up at `port`; what it prints goes to `server.log` in the folder."""
    log = (folder / "server.log").open("wb")
    server = subprocess.Popen(
        [*map(str, command)],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    try:
        while True:
            assert server.poll() is None, (folder / "server.log").read_text()
            try:
                assert fetched(port, "/health")[0] == 200
                break
            except OSError:
                time.sleep(0.2)
        yield
    finally:
        server.terminate()
        server.wait()
        log.close()


class LocalServer:
    """A server in a thread of this process; a subclass says what `get` and `post` send."""

    def __init__(self):
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.get(self)

            def do_POST(self):
                outer.post(self, json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def send(self, status, text, headers=()):
                data = text.encode()
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()

"""A cache folder of the test's own, a small captioning folder, and a web server on this machine."""

import io
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flaxformer_edu.data import write_pictures


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("FLAXFORMER_EDU_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A captioning folder that no test changes."""
    return write_pictures(tmp_path_factory.mktemp("drawn") / "set", seed=1, train=40, val=12)


@pytest.fixture
def folder(drawn: Path, tmp_path: Path) -> Path:
    """A captioning folder to damage."""
    return Path(shutil.copytree(drawn, tmp_path / "set"))


def png(image: np.ndarray) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, format="PNG")
    return encoded.getvalue()


class Server:
    """Serves `files` by path; `silent` paths get no answer before the test ends, `short` ones half of it.

    The length of `unannounced` ones is not said.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.silent: set[str] = set()
        self.short: set[str] = set()
        self.unannounced: set[str] = set()
        self.asked: list[str] = []
        self.over = threading.Event()
        served = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                served.asked.append(self.path)
                if self.path in served.silent:
                    served.over.wait()
                elif self.path not in served.files:
                    self.send_error(404)
                else:
                    content = served.files[self.path]
                    self.send_response(200)
                    if self.path not in served.unannounced:
                        self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content[: len(content) // 2] if self.path in served.short else content)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        self.over.set()
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running = Server()
    yield running
    running.close()

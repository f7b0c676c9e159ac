"""Uploads, against a server on this machine that answers as the hub does."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from posbench.results.rows import read_rows


class Hub(BaseHTTPRequestHandler):
    """Accepts repositories of the user `me`, and keeps their files."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server, self.server.seen = (
            self.server,
            [*self.server.seen, (self.path, self.headers["Authorization"])],
        )
        parts = self.path.strip("/").split("/")
        if parts[:3] == ["api", "repos", "create"]:
            wanted = json.loads(body)
            if wanted.get("organization", "me") != "me":
                return self.answer({"error": "You don't have the rights to create a repo there"}, 403)
            kind = "datasets/" if wanted.get("type") == "dataset" else ""
            return self.answer(
                {"url": f"{server.address}/{kind}me/{wanted['name']}", "id": f"me/{wanted['name']}"}
            )
        if "preupload" in parts:
            files = [
                {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                for one in json.loads(body)["files"]
            ]
            return self.answer({"files": files})
        if "commit" in parts:
            for line in body.decode().splitlines():
                one = json.loads(line)
                if one["key"] == "file":
                    content = base64.b64decode(one["value"]["content"])
                    server.files["/".join([*parts[1:4], one["value"]["path"]])] = content
            address = "/".join([server.address, *parts[1 + (parts[1] == "models") : 4], "commit", "abc"])
            return self.answer({"commitUrl": address, "commitOid": "abc", "success": True})
        return self.answer({})

    def do_GET(self):
        if "/me/" in self.path:
            return self.answer({"id": "me/it", "sha": "abc", "siblings": []})
        return self.answer({"error": "Repository not found"}, 404)

    do_HEAD = do_GET

    def answer(self, content, status=200):
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def hub(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.address = f"http://127.0.0.1:{server.server_port}"
    server.files, server.seen = {}, []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.address)
    monkeypatch.setattr("huggingface_hub.hf_api.get_token", lambda: "hf_stored", raising=False)
    monkeypatch.setattr("huggingface_hub.utils._headers.get_token", lambda: "hf_stored")
    yield server
    server.shutdown()
    server.server_close()


def test_a_model_is_pushed(posbench, trained, tmp_path, hub):
    status, out, err = posbench("export", trained, "--to", tmp_path / "out", "--push", "me/alibi")
    assert status == 0, err
    assert f"{hub.address}/me/alibi" in out
    written = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert {name.removeprefix("models/me/alibi/"): content for name, content in hub.files.items()} == written
    assert {token for _, token in hub.seen} == {"Bearer hf_stored"}, "the token is that of the store"


def test_rows_are_pushed_as_a_dataset(posbench, trained, tmp_path, hub):
    results = trained.parents[1]
    status, _, err = posbench(
        "results", "export", "--to", tmp_path / "out", "--results-dir", results, "--push", "me/rows"
    )
    assert status == 0, err
    assert set(hub.files) == {"datasets/me/rows/README.md", "datasets/me/rows/rows.parquet"}
    (tmp_path / "back.parquet").write_bytes(hub.files["datasets/me/rows/rows.parquet"])
    assert len(read_rows(tmp_path / "back.parquet")) > 0


def test_a_refusal_is_one_line_and_keeps_the_folder(posbench, trained, tmp_path, hub):
    status, _, err = posbench("export", trained, "--to", tmp_path / "out", "--push", "others/alibi")
    assert status == 2
    assert "cannot be pushed" in err
    assert "hf auth login" in err
    assert err.count("\n") == 1
    assert (tmp_path / "out" / "config.json").exists()

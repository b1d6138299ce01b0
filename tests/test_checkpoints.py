import contextlib
import hashlib
import http.server
import json
import os
import pty
import shutil
import socket
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pytest
from conftest import model_error, write_json

from streamer.recognition.checkpoints import resolve

EMBEDDED = resolve("embedded-sew").folder
SMALL = {"words.arpa.gz"} | {file.name for file in EMBEDDED.glob("*.json")}
ROOT = Path(__file__).parent.parent


# --- folders ------------------------------------------------------------------------------------


def test_the_embedded_model_is_part_of_the_package():
    checkpoint = resolve("embedded-sew")
    assert checkpoint.name == "embedded-sew"
    assert (checkpoint.folder / "model.safetensors").is_file()
    assert (checkpoint.folder / "README.md").is_file()


def test_a_folder_is_taken_as_it_is():
    assert resolve(str(EMBEDDED)).folder == EMBEDDED


def test_finding_a_model_loads_neither_torch_nor_the_hubs_client():
    code = (
        "import sys, streamer.recognition.checkpoints as c; c.resolve('embedded-sew')\n"
        "assert not {'torch', 'transformers', 'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("lost", ["config.json", "vocab.json", "model.safetensors"])
def test_a_folder_that_lacks_a_file_is_refused(tmp_path, lost):
    folder = shutil.copytree(EMBEDDED, tmp_path / "model")
    (folder / lost).unlink()
    assert f"no {lost}" in model_error(resolve, str(folder))


def test_a_folder_that_lacks_a_shard_is_refused(tmp_path):
    folder = shutil.copytree(EMBEDDED, tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    write_json(folder, "model.safetensors.index.json", {"weight_map": shards})
    assert "no model-00002-of-00002.safetensors" in model_error(resolve, str(folder))


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/model", "a/b/c", "", "two words", "../x"])
def test_what_is_neither_folder_nor_hub_name_is_refused(name):
    assert "neither a model's folder nor a hub name" in model_error(resolve, name)


def test_a_file_is_refused():
    assert "neither" in model_error(resolve, str(EMBEDDED / "model.safetensors"))


def test_a_model_that_is_pre_trained_only_needs_no_letters(tmp_path):
    write_json(tmp_path, "config.json", {"model_type": "sew"})
    (tmp_path / "model.safetensors").touch()
    assert "no vocab.json" in model_error(resolve, str(tmp_path))
    assert resolve(str(tmp_path), letters=False).folder == tmp_path


# --- the hub: a real server of its interface, and a cache of its own each time -------------------

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub as its client needs; `server.files` by model, `server.asked` in order.

    `server.faults` befall the transfers of large files, whose first bytes are `server.starts`.
    """

    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        path = self.path.split("?")[0]
        self.server.asked.append(path)
        model = next((name for name in self.server.files if f"/{name}" in path), None)
        if model is None:
            return self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body)
        files = self.server.files[model]
        if path.startswith("/api/models/"):
            info = {"id": model, "sha": COMMIT, "siblings": [{"rfilename": f} for f in files]}
            return self.send(200, json.dumps(info).encode(), {}, body)
        content = files.get(path.split(f"/resolve/{COMMIT}/")[-1].split("/resolve/main/")[-1])
        if content is None:
            return self.send(404, b"", {"X-Error-Code": "EntryNotFound"}, body)
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
        start = 0
        if wanted := self.headers.get("Range"):
            start = int(wanted.removeprefix("bytes=").split("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if not body or len(content) < 10_000:
            return self.send(206 if start else 200, content[start:], headers, body)
        self.server.starts.append(start)
        faults, self.server.faults = self.server.faults[:1], self.server.faults[1:]
        if faults == ["refuse"]:
            return self.send(500, b"", {}, body)
        if faults:
            headers["Content-Length"] = str(len(content))
            self.close_connection = True
            return self.send(200, content[: faults[0]], headers, body)
        return self.send(206 if start else 200, content[start:], headers, body)

    def send(self, status, content, headers, body):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.files, server.asked, server.starts, server.faults = {}, [], [], []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def files_of_a_model(**weights):
    small = {name: (EMBEDDED / name).read_bytes()[:9_000] for name in SMALL}
    return {
        **small,
        "README.md": b"-",
        "flax_model.msgpack": b"-",
        "adapter.deu.safetensors": b"-",
        **{name.replace("__", "."): content for name, content in weights.items()},
    }


def ask(name, home, endpoint, *, progress=False, stderr=subprocess.PIPE, **environ):
    """Resolve in a process of its own: (folder, name) or the error's text; and stderr."""
    code = (
        "import sys, json\n"
        "from streamer.errors import ModelError\n"
        "from streamer.recognition import resolve\n"
        "try:\n"
        "    c = resolve(sys.argv[1], progress=sys.argv[2] == 'True')\n"
        "    print(json.dumps([str(c.folder), c.name]))\n"
        "except ModelError as error:\n"
        "    print(json.dumps(str(error)))\n"
    )
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS_"))}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, name, str(progress)],
        env={
            **kept,
            "PYTHONPATH": str(ROOT),
            "HF_HOME": str(home),
            "HF_ENDPOINT": endpoint,
            "no_proxy": "127.0.0.1",
            **environ,
        },
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def url(server):
    return f"http://127.0.0.1:{server.server_address[1]}"


def test_a_model_is_fetched_once_and_only_what_is_needed(hub, tmp_path):
    hub.files["some/model"] = files_of_a_model(model__safetensors=b"s", pytorch_model__bin=b"b")
    (folder, name), noise = ask("some/model", tmp_path, url(hub))
    assert {file.name for file in Path(folder).iterdir()} == SMALL | {"model.safetensors"}
    assert (name, noise) == ("some/model", "")
    hub.asked.clear()
    assert ask("some/model", tmp_path, url(hub))[0] == [folder, name]
    assert hub.asked == [], "a complete cache needs no network"


def test_a_bin_is_fetched_only_where_there_are_no_safetensors(hub, tmp_path):
    hub.files["some/model"] = files_of_a_model(pytorch_model__bin=b"b")
    (folder, _), _ = ask("some/model", tmp_path, url(hub))
    assert (Path(folder) / "pytorch_model.bin").read_bytes() == b"b"


def test_shards_are_fetched_with_their_index(hub, tmp_path):
    shards = {"model-00001-of-00002.safetensors": b"1", "model-00002-of-00002.safetensors": b"2"}
    index = json.dumps({"weight_map": dict(zip("ab", shards, strict=True))}).encode()
    hub.files["some/model"] = files_of_a_model(model__safetensors__index__json=index) | shards
    (folder, _), _ = ask("some/model", tmp_path, url(hub))
    assert {file.name for file in Path(folder).glob("model*")} == {
        "model.safetensors.index.json",
        *shards,
    }


def test_a_download_shows_a_bar_on_a_terminal(hub, tmp_path):
    hub.files["some/model"] = files_of_a_model(model__safetensors=b"s" * 100_000)
    screen, terminal = pty.openpty()
    termios.tcsetwinsize(screen, (24, 100))
    answer, _ = ask("some/model", tmp_path, url(hub), progress=True, stderr=terminal)
    os.close(terminal)
    shown = os.read(screen, 100_000).decode()
    os.close(screen)
    assert answer[1] == "some/model"
    assert "model.safetensors" in shown
    assert "100%" in shown


def test_an_interrupted_download_goes_on_where_it_stopped(hub, tmp_path):
    weights = bytes(range(256)) * 100_000
    hub.files["some/model"] = files_of_a_model(model__safetensors=weights)
    hub.faults = [22_000_000, "refuse"]
    message, _ = ask("some/model", tmp_path, url(hub))
    assert "the download broke off" in message
    assert "goes on where it stopped" in message
    (folder, _), _ = ask("some/model", tmp_path, url(hub))
    assert (Path(folder) / "model.safetensors").read_bytes() == weights
    assert len(hub.starts) == 3
    assert min(hub.starts[1:]) >= 10_000_000


def test_what_arrived_damaged_is_not_kept(hub, tmp_path):
    weights = bytes(range(256)) * 1_000
    hub.files["some/model"] = files_of_a_model(model__safetensors=weights)
    blobs = tmp_path / "hub" / "models--some--model" / "blobs"
    blobs.mkdir(parents=True)
    part = blobs / f"{hashlib.sha256(weights).hexdigest()}.part"
    part.write_bytes(bytes(1_000))
    assert "arrived damaged" in ask("some/model", tmp_path, url(hub))[0]
    assert ask("some/model", tmp_path, url(hub))[0][1] == "some/model"


def test_a_half_filled_cache_is_completed(hub, tmp_path):
    hub.files["some/model"] = files_of_a_model(model__safetensors=b"s")
    (folder, _), _ = ask("some/model", tmp_path, url(hub))
    (Path(folder) / "model.safetensors").unlink()
    assert ask("some/model", tmp_path, url(hub))[0][0] == folder
    assert (Path(folder) / "model.safetensors").read_bytes() == b"s"


def test_a_name_that_the_hub_does_not_know_is_refused(hub, tmp_path):
    message, _ = ask("some/typo", tmp_path, url(hub))
    assert message == (
        "some/typo: the model hub has no such public model; `--model moonshine-tiny` needs no hub"
    )


def test_a_hub_model_without_weights_for_torch_is_refused(hub, tmp_path):
    hub.files["some/model"] = files_of_a_model()
    assert "holds no weights" in ask("some/model", tmp_path, url(hub))[0]


@contextlib.contextmanager
def unreachable(kind):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if kind == "silent":
            listener.listen()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("kind", ["refusing", "silent"])
def test_without_the_hub_a_named_model_is_an_error_soon(kind, tmp_path):
    with unreachable(kind) as endpoint:
        started = time.monotonic()
        message, _ = ask("some/model", tmp_path, endpoint)
        assert time.monotonic() - started < 20, "hangs"
    assert "cannot be reached" in message or "did not answer within 4 s" in message
    assert "\n" not in message


def test_offline_mode_asks_nobody(hub, tmp_path):
    hub.files["some/model"] = files_of_a_model(model__safetensors=b"s")
    assert "HF_HUB_OFFLINE" in ask("some/model", tmp_path, url(hub), HF_HUB_OFFLINE="1")[0]
    assert hub.asked == []


def test_the_caches_own_variable_is_respected(hub, tmp_path):
    hub.files["some/model"] = files_of_a_model(model__safetensors=b"s")
    elsewhere = tmp_path / "elsewhere"
    (folder, _), _ = ask("some/model", tmp_path, url(hub), HF_HUB_CACHE=str(elsewhere))
    assert elsewhere in Path(folder).parents

"""Small inputs for the tests of the data: servers, archives, pictures, folders of faces."""

import contextlib
import errno
import hashlib
import io
import os
import subprocess
import sys
import threading
import warnings
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import hypothesis
import numpy as np
import torch
from PIL import Image

import helpers

SEARCH = hypothesis.settings(
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)


def full(*args, **kwargs):
    """Stands for what fails on a full disk."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def names_below(folder):
    """The files below a folder, hidden ones aside."""
    paths = [path for path in Path(folder).rglob("[!.]*") if path.is_file()]
    return sorted(path.relative_to(folder).as_posix() for path in paths)


@contextlib.contextmanager
def serve(answer):
    """A local HTTP server; `answer(handler)` handles each GET. Yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            with contextlib.suppress(ConnectionError):
                answer(self)

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=lambda: server.serve_forever(0.02), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/faces.zip"
        server.shutdown()


def file_answer(content, claimed=None):
    """An answer that sends `content`, or a part of it; `claimed`: a Content-Length that lies."""

    def answer(handler):
        first = int(handler.headers.get("Range", "bytes=0-")[6:].rstrip("-"))
        answer.asked.append(first)
        if first >= len(content) > 0:
            handler.send_error(416)
            return
        handler.send_response(206 if first else 200)
        handler.send_header("Content-Length", str(claimed or len(content) - first))
        handler.end_headers()
        handler.wfile.write(content[first:])

    answer.asked = []
    return answer


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photo_bytes(shade=200):
    return encoded(Image.new("RGB", (20, 30), (shade, 90, 60)), "JPEG")


PUBLISHED_LAYOUT = (
    "faces/celeba/000001.jpg",
    "faces/celeba/New Folder With Items/000002.jpg",
    "faces/.DS_Store",
    "__MACOSX/faces/celeba/._000001.jpg",
    "faces/celeba/notes.txt",
)


def archive(names=PUBLISHED_LAYOUT, change=None, compression=zipfile.ZIP_STORED, texts=()):
    """The bytes of a zip of photographs of these names, and of `texts`: (name, text) each."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as pack:
        for name in names:
            member = zipfile.ZipInfo(name)
            member.compress_type = compression
            if change:
                change(member)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a name may be there twice
                pack.writestr(member, photo_bytes())
        for name, text in texts:
            pack.writestr(name, text)
    return buffer.getvalue()


def zip_of_shades(names):
    """The bytes of a zip of one-color pictures, of shades 0, 10, 20 ... in this order."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w") as pack:
        warnings.simplefilter("ignore")  # of names that come twice
        for k, name in enumerate(names):
            pack.writestr(name, encoded(Image.new("L", (8, 8), 10 * k), "PNG"))
    return buffer.getvalue()


def of_kind(kind):
    """Makes an entry of a zip a link, a device ..."""
    return lambda member: setattr(member, "external_attr", (kind | 0o777) << 16)


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def save_faces(folder, n, name="{:06d}.jpg", first=1, kind=None):
    """n different pictures of noise, named by their numbers."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for i in range(first, first + n):
        noise = np.random.default_rng(i).integers(0, 256, (6, 5, 3), dtype=np.uint8)
        image = Image.fromarray(noise).resize((20, 24), Image.BICUBIC)
        image.save(Path(folder, name.format(i)), kind)


def save_shades(folder, n):
    """n pictures, each of a shade of its own."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for i in range(n):
        shade = (135 + 5 * i % 120, i % 256, 20)
        Image.new("RGB", (20, 24), shade).save(Path(folder, f"{i:03}.png"))


def faces_named(*names, labels=None, classes=(".",), readable=None, root="."):
    """DecodedFaces of files with these names, each of a color of its own."""
    numbers = torch.arange(len(names))
    colors = torch.stack([numbers // 256, numbers % 256, 0 * numbers], 1).to(torch.uint8)
    images = colors[:, :, None, None].expand(-1, -1, 4, 4)
    labels = torch.zeros(len(names), dtype=torch.int64) if labels is None else labels
    return helpers.DecodedFaces(images, labels, classes, False, names, readable, root)


def write_list(folder, columns, names=None, place="list_attr_celeba.txt"):
    """Write a list of attributes of these columns of bools; returns the faces."""
    n = len(next(iter(columns.values())))
    names = names or [f"{i}.jpg" for i in range(n)]
    lines = [" ".join(columns)]
    for i, name in enumerate(names):
        lines.append(" ".join([name, *("1" if column[i] else "-1" for column in columns.values())]))
    Path(folder, place).parent.mkdir(parents=True, exist_ok=True)
    Path(folder, place).write_text("\n".join(lines), encoding="utf-8")
    return faces_named(*names, root=folder)


def start(code, *args, cwd=None, command=None):
    """A Python process that runs `code` with these arguments, or a command; its output as text."""
    paths = [str(Path(helpers.__file__).parent), str(Path(__file__).parent)]
    environment = {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command or [sys.executable, "-c", code, *map(str, args)],
        cwd=cwd,
        env=os.environ | environment | {"MPLBACKEND": "Agg"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )

"""Download an archive: whole, checked, and from where an earlier try stopped."""

import contextlib
import errno
import hashlib
import http.client
import os
import threading
import urllib.request
import zipfile
from pathlib import Path

from tqdm import tqdm

from assets.lib.files import FULL, DataError

PUBLISHED_URL = (
    "https://s3.amazonaws.com/video.udacity-data.com/topher/2018/November/"
    "5be7eb6f_processed-celeba-small/processed-celeba-small.zip"
)
PUBLISHED_SHA256 = "2cd4fbba4b618faeb4be18c69da3a68ff6a163057d12ff321cb044fc51f416d3"
PUBLISHED_BYTES = 247_694_507


class Unreachable(Exception):
    """The archive could not be fetched, through no fault of the data."""


def download(url, path, sha256=None, timeout=15, progress=tqdm):
    """Fetch `url` (http or https) to `path`, with a progress bar, resuming where it stopped.

    Returns the path, once zip signature, size and sha256 are right. Raises Unreachable when the
    address does not answer and DataError when what it answers is not the archive.
    """
    path = Path(path).with_suffix(".zip")
    partial = path.with_suffix(".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():  # fetched and checked before, but not unpacked
        return path
    have = partial.stat().st_size if partial.exists() else 0
    answer = open_url(url, have, timeout)
    if answer is None and not zipfile.is_zipfile(partial):
        answer = open_url(url, 0, timeout)
    if answer is not None:
        with contextlib.closing(answer):
            copy_answer(answer, partial, url, progress)
    try:
        check_archive(partial, sha256, url)
    except DataError:
        partial.unlink()
        raise
    os.replace(partial, path)
    return path


def open_url(url, offset, timeout):
    """urlopen in a thread of its own, as looking up a name can hang; None if no bytes are left."""
    headers = {"User-Agent": "face-generation-lesson"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    request, outcome = urllib.request.Request(url, headers=headers), [TimeoutError("no answer")]

    def fetch():
        try:
            outcome.append(urllib.request.urlopen(request, timeout=timeout))
        except Exception as error:  # raised below
            outcome.append(error)

    thread = threading.Thread(target=fetch, daemon=True)
    thread.start()
    thread.join(timeout + 5)
    answer = outcome[-1]
    if isinstance(answer, urllib.error.HTTPError) and answer.code == 416:
        return None
    if isinstance(answer, urllib.error.HTTPError):
        raise Unreachable(f"the server of the archive answers {answer.code} {answer.reason}")
    if isinstance(answer, Exception):
        reason = getattr(answer, "reason", answer)
        raise Unreachable(f"no network ({getattr(reason, 'strerror', None) or reason})")
    return answer


def copy_answer(answer, partial, url, progress):
    """Write a server's answer to the file `partial`, or the rest of it."""
    have = partial.stat().st_size if answer.status == 206 else 0
    length = answer.headers.get("Content-Length")
    total = have + int(length) if length else None
    try:
        block = answer.read(2**18)
        if not have:
            check_head(block, answer.geturl())  # before anything is overwritten
        print(f"Downloading {url}")
        bar = progress(total=total, initial=have, unit="B", unit_scale=True, desc="download")
        with bar, open(partial, "r+b" if have else "wb") as file:
            file.seek(have)
            while block:
                have += file.write(block)
                bar.update(len(block))
                block = answer.read(2**18)
    except (OSError, http.client.HTTPException) as error:
        if getattr(error, "errno", None) in (*FULL, errno.EROFS, errno.EACCES, errno.EIO):
            raise  # the disk's
        raise Unreachable(f"the download broke off ({error}); run again to resume") from error
    if total and have < total:
        raise Unreachable("the download broke off; run again to resume")


def check_head(head, url):
    """DataError unless these first bytes are a zip file's."""
    if head.startswith(b"PK"):
        return
    kind = "a file that is no zip archive"
    if b"<html" in head.lower() or b"<!doctype" in head.lower():
        kind = "a web page (HTML), as for a login or a quota,"
    message = f"At {url} there is {kind} instead of the archive."
    raise DataError(f"{message} Download it in a browser and set data_dir to the .zip.")


def check_archive(path, sha256, source):
    """DataError unless the file, fetched from `source`, has this sha256."""
    if not sha256:
        return
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    size, found = path.stat().st_size, digest.hexdigest()
    wrong = f"sha256, {found}, not {sha256}" if found != sha256.lower() else None
    if sha256 == PUBLISHED_SHA256 and size != PUBLISHED_BYTES:
        wrong = f"size, {size:,} bytes, not {PUBLISHED_BYTES:,}"
    if wrong:
        message = f"{source} has the wrong {wrong}: it is damaged, or another file"
        raise DataError(f"{message}. Try again, or set data_sha256 = None to take any archive.")

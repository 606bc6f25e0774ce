"""Downloads: whole and checked, from where an earlier try stopped; what is no archive is named."""

import time
from pathlib import Path
from unittest import mock

import pytest
from data_inputs import archive, file_answer, full, serve, sha256

from assets.lib import sources
from assets.lib.downloads import Unreachable, download
from assets.lib.files import DataError
from assets.lib.sources import find_data


def test_download_goes_on_where_it_stopped(empty_place):
    content, partial = archive(), Path("got.partial")
    partial.write_bytes(content[:100])
    answer = file_answer(content)
    with serve(answer) as url:
        path = download(url, "got", sha256(content))
    assert answer.asked == [100], f"expected only the rest to be sent, got {answer.asked}"
    assert path.read_bytes() == content and not partial.exists(), "expected the whole archive"


def test_a_download_that_was_complete_is_not_fetched_anew(empty_place):
    content = archive()
    for sha in (sha256(content), None):
        Path("got.partial").write_bytes(content)
        answer = file_answer(content)
        with serve(answer) as url:
            path = download(url, "got", sha)
        assert answer.asked == [len(content)], f"expected one question, got {answer.asked}"
        assert path.read_bytes() == content, "expected the archive that was there"
        path.unlink()
    Path("got.partial").write_bytes(b"something else, longer than the archive" * 200)
    with serve(file_answer(content)) as url:
        path = download(url, "got", sha256(content))
    assert path.read_bytes() == content, "expected a wrong beginning to be fetched anew"


def test_a_download_that_breaks_off_is_not_taken_for_whole(empty_place):
    content = archive()
    with serve(file_answer(content[:150], claimed=len(content))) as url:
        with pytest.raises(Unreachable, match="broke off"):
            download(url, "got", sha256(content))
    assert not Path("got.zip").exists(), "expected no archive under its final name"
    with serve(file_answer(content)) as url:
        path = download(url, "got", sha256(content))
    assert path.read_bytes() == content, "expected it to be completed"


def test_a_web_page_spares_what_was_downloaded(empty_place):
    def page(handler):  # without a Content-Length, as login pages are often sent
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(b"<!doctype html><html>Please log in</html>")

    Path("got.partial").write_bytes(archive()[:100])
    with serve(page) as url, pytest.raises(DataError, match="web page"):
        download(url, "got")
    assert Path("got.partial").read_bytes() == archive()[:100], "expected the beginning to be kept"


def test_a_zip_that_speaks_of_html_is_a_zip(empty_place):
    content = archive(["faces/1.jpg"], texts=[("faces/0.txt", "<html><!doctype")])
    content = archive(["<html>/1.jpg"])
    with serve(file_answer(content)) as url:
        assert download(url, "got").read_bytes() == content, "expected the signature first"


def test_an_archive_that_was_fetched_is_not_fetched_again(empty_place):
    answer = file_answer(archive())
    with serve(answer) as url:
        assert download(url, "got") == download(url, "got")
    assert len(answer.asked) == 1, f"expected one download, got {len(answer.asked)}"


def test_a_server_that_hangs_is_given_up(empty_place):
    def half(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(archive())))
        handler.end_headers()
        handler.wfile.write(archive()[:200])
        handler.wfile.flush()
        time.sleep(1.5)

    cases = (lambda handler: time.sleep(1.5), "no network"), (half, "broke off")
    for answer, message in cases:
        with serve(answer) as url, pytest.raises(Unreachable, match=message):
            download(url, "got", timeout=0.3)


def test_a_redirect_to_a_login_page_is_named(empty_place):
    def answer(handler):
        is_login = "login" in handler.path
        handler.send_response(200 if is_login else 302)
        handler.send_header("Location", "/login")
        handler.end_headers()
        handler.wfile.write(b"<html>Please log in</html>" if is_login else b"")

    with serve(answer) as url, pytest.raises(DataError, match="At .*/login there is a web"):
        download(url, "got")


def test_a_full_disk_ends_a_download_but_keeps_its_beginning(empty_place, monkeypatch):
    bar = mock.MagicMock()
    bar.update.side_effect = full
    monkeypatch.setattr(sources, "progress", lambda *_, **__: bar)
    with serve(file_answer(archive())) as url, pytest.raises(OSError, match="No space.*Make room"):
        find_data("faces_here", url)
    assert list(Path("cache").glob("*.partial")), "expected the partial file to be kept"
    assert not list(Path("cache").glob("*.zip")), "expected no archive under its final name"

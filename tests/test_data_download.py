"""The downloader against a server on this machine that stumbles on purpose."""

from __future__ import annotations

import hashlib
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sparsetrain.data import DataError
from sparsetrain.data.download import Remote, fetch
from tests.archives import random_pixels

_CONTENT = random_pixels(600_000).tobytes()
_MD5 = hashlib.md5(_CONTENT, usedforsecurity=False).hexdigest()


@dataclass
class _Behaviour:
    """What the server does.

    Attributes:
        cut: bytes sent of the first answer before the connection breaks; None sends all.
        ranges: whether it understands them.
        length: whether it says how much comes.
        seen: Range header of each request.
    """

    cut: int | None = None
    ranges: bool = True
    length: bool = True
    seen: list[str | None] = field(default_factory=list)


@contextmanager
def _serving(behaviour: _Behaviour) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            asked = self.headers["Range"]
            behaviour.seen.append(asked)
            start = int(asked[6:-1]) if asked and behaviour.ranges else 0
            if self.path != "/data.bin":
                self.send_error(404)
                return
            if start >= len(_CONTENT):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(_CONTENT)}")
                self.end_headers()
                return
            self.send_response(206 if asked and behaviour.ranges else 200)
            if behaviour.length:
                self.send_header("Content-Length", str(len(_CONTENT) - start))
            self.end_headers()
            end = len(_CONTENT) if behaviour.cut is None else start + behaviour.cut
            behaviour.cut = None
            self.wfile.write(_CONTENT[start:end])

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/data.bin"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.mark.parametrize("length", [True, False])
def test_download_is_whole_checked_and_reported(tmp_path: Path, length: bool) -> None:
    reports: list[tuple[str, int, int | None]] = []
    with _serving(_Behaviour(length=length)) as url:
        path = fetch(
            Remote(url, _MD5),
            tmp_path / "new" / "folder",
            progress=lambda name, done, total: reports.append((name, done, total)),
        )

    assert path.read_bytes() == _CONTENT
    assert list(path.parent.iterdir()) == [path]
    assert reports[-1] == ("data.bin", len(_CONTENT), len(_CONTENT) if length else None)
    assert [done for _, done, _ in reports] == sorted(done for _, done, _ in reports)


def test_broken_download_is_resumed_where_it_stopped(tmp_path: Path) -> None:
    behaviour = _Behaviour(cut=250_000)
    with _serving(behaviour) as url:
        with pytest.raises(DataError, match=r"broke off.*again to go on from there"):
            fetch(Remote(url, _MD5), tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["data.bin.part"]

        path = fetch(Remote(url, _MD5), tmp_path)

    assert behaviour.seen == [None, "bytes=250000-"]
    assert path.read_bytes() == _CONTENT
    assert list(tmp_path.iterdir()) == [path]


def test_server_without_ranges_starts_afresh(tmp_path: Path) -> None:
    (tmp_path / "data.bin.part").write_bytes(b"stale")
    with _serving(_Behaviour(ranges=False)) as url:
        assert fetch(Remote(url, _MD5), tmp_path).read_bytes() == _CONTENT


@pytest.mark.parametrize("stale", [_CONTENT, _CONTENT + b"too long"])
def test_complete_part_is_taken_and_a_longer_one_fetched_again(
    tmp_path: Path, stale: bytes
) -> None:
    (tmp_path / "data.bin.part").write_bytes(stale)
    behaviour = _Behaviour()
    with _serving(behaviour) as url:
        assert fetch(Remote(url, _MD5), tmp_path).read_bytes() == _CONTENT

    assert len(behaviour.seen) == (1 if stale == _CONTENT else 2)


def test_wrong_checksum_removes_the_file(tmp_path: Path) -> None:
    with _serving(_Behaviour()) as url, pytest.raises(DataError, match=f"MD5 {_MD5}, but 0123"):
        fetch(Remote(url, "0123"), tmp_path)

    assert not list(tmp_path.iterdir())


def test_part_of_another_file_does_not_pass(tmp_path: Path) -> None:
    (tmp_path / "data.bin.part").write_bytes(b"x" * 1000)
    with _serving(_Behaviour()) as url:
        with pytest.raises(DataError, match="was removed"):
            fetch(Remote(url, _MD5), tmp_path)
        assert fetch(Remote(url, _MD5), tmp_path).read_bytes() == _CONTENT


def test_without_published_checksum_the_computed_one_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with _serving(_Behaviour()) as url, caplog.at_level(logging.WARNING):
        fetch(Remote(url, None), tmp_path)

    assert "No checksum is published" in caplog.text
    assert hashlib.sha256(_CONTENT).hexdigest() in caplog.text


def test_offline_says_which_file_to_put_where(tmp_path: Path) -> None:
    with _serving(_Behaviour()) as url:
        pass  # the server is gone, its port closed
    with pytest.raises(DataError) as error:
        fetch(Remote(url, _MD5), tmp_path)

    assert str(error.value).startswith(f"Cannot download {url}")
    assert f"put the file at {tmp_path / 'data.bin'} by hand" in str(error.value)
    assert not list(tmp_path.iterdir())


def test_missing_page_is_named(tmp_path: Path) -> None:
    with _serving(_Behaviour()) as url, pytest.raises(DataError, match="404"):
        fetch(Remote(url.replace("data", "other"), _MD5), tmp_path)

    assert not list(tmp_path.iterdir())


def test_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(DataError, match=r"Cannot write .*another data folder"):
        fetch(Remote("http://127.0.0.1:9/data.bin", _MD5), tmp_path / "file" / "folder")


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "data.bin.part").symlink_to("/dev/full")

    with _serving(_Behaviour()) as url, pytest.raises(DataError, match="No space left on device"):
        fetch(Remote(url, _MD5), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="folders are not locked there")
def test_processes_that_want_the_same_file_download_it_once(tmp_path: Path) -> None:
    behaviour = _Behaviour()
    with _serving(behaviour) as url:
        threads = [
            threading.Thread(target=fetch, args=(Remote(url, _MD5), tmp_path)) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert len(behaviour.seen) == 1
    assert (tmp_path / "data.bin").read_bytes() == _CONTENT

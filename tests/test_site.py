"""The documentation site: builds strictly, no dead link, nothing from elsewhere, fits a phone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.browser_tools import CHROMIUM

ROOT = Path(__file__).parent.parent
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("mkdocs") is None, reason="needs the extra docs"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built") / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out


class Page(HTMLParser):
    """Links, what is loaded, and the places that can be linked to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value for name, value in attrs if value}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        address = found.get("href") or found.get("src")
        if address and tag in ("script", "img", "link", "iframe", "source"):
            self.loaded.append(address)
        elif address:
            self.links.append(address)


def dead(pages: dict[Path, Page]) -> list[str]:
    """Addresses within the site at which there is nothing."""
    out = []
    for path, page in pages.items():
        for address in page.links + page.loaded:
            parts = urlsplit(address)
            if parts.scheme or path.name == "404.html":
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target /= "index.html"
            known = pages.get(target)
            missing = known is not None and parts.fragment not in known.anchors | {"", "__tabbed"}
            if not target.exists() or missing:
                out.append(f"{path.name}: {address}")
    return out


def read(site: Path) -> dict[Path, Page]:
    return {path.resolve(): Page(path) for path in site.rglob("*.html")}


def test_no_link_is_dead(site: Path) -> None:
    pages = read(site)
    assert len(pages) > 30
    assert dead(pages) == []


def test_a_dead_link_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<a href="b.html">b</a><a href="#c">c</a><p id="d"></p>')
    assert dead(read(tmp_path)) == ["a.html: b.html", "a.html: #c"]


def test_no_markup_is_left_in_the_text(site: Path) -> None:
    found = {
        path.name: left
        for path in site.rglob("*.html")
        for left in ("```", "::</p>", "<p>| ", "](")
        if left in re.sub(r"<(script|code|pre)\b.*?</\1>", "", path.read_text(), flags=re.S)
    }
    assert found == {}


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for page in read(site).values():
        assert [a for a in page.loaded if urlsplit(a).netloc] == []


_REPORT = """<script>addEventListener("load", () => setTimeout(() => {
  const page = document.documentElement;
  parent.postMessage([document.title, page.scrollWidth - page.clientWidth], "*");
}, 300));</script></body>"""
_FRAMES = """<!doctype html><meta charset="utf-8"><script>
const found = [];
addEventListener("message", (e) => {{
  found.push(e.data); document.querySelector("#found").textContent = JSON.stringify(found);
}});
</script><pre id="found"></pre>{frames}"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (Debian: apt install chromium)")
@pytest.mark.parametrize("width", [390, 1280])
def test_no_page_is_wider_than_the_screen(site: Path, tmp_path: Path, width: int) -> None:
    pages = [path for path in sorted(site.rglob("*.html")) if path.name != "404.html"]
    frames = []
    for path in pages:
        copy = path.with_suffix(".htm")  # not a page of the other tests
        copy.write_text(path.read_text().replace("</body>", _REPORT))
        frames.append(f'<iframe width="{width}" height="800" src="{copy.as_uri()}"></iframe>')
    harness = tmp_path / "frames.html"
    harness.write_text(_FRAMES.format(frames="".join(frames)))
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
    command = [str(CHROMIUM), *flags, "--virtual-time-budget=60000", "--dump-dom", str(harness)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=True)
    text = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert text and text[1], done.stderr
    found = json.loads(unescape(text[1]))
    assert len(found) == len(pages)
    assert [title for title, over in found if over > 0] == []

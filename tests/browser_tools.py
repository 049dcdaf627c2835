"""A page looked at in a headless Chromium, in a frame as wide as a phone or a desk's screen."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-dev-shm-usage", "--virtual-time-budget=20000", "--window-size=1400,1000"),
)
_CATCH = """<script>
window.pageErrors = [];
addEventListener("error", (e) => pageErrors.push(e.message));
</script>"""
_HARNESS = """<!doctype html><meta charset="utf-8">
<script>
addEventListener("message", (e) => {{ document.querySelector("#found").textContent = e.data; }});
</script>
<iframe style="border:0" width="{width}" height="900" srcdoc="{page}"></iframe>
<pre id="found"></pre>
"""


def look_at(page: str, folder: Path, *, width: int) -> dict[str, Any]:
    """What `browser_checks.js` finds in a page.

    Args:
        page: its HTML.
        folder: for a file or two.
        width: of the frame in CSS pixels.
    """
    checks = Path(__file__).with_name("browser_checks.js").read_text()
    page = page.replace("<head>", f"<head>{_CATCH}", 1)
    page = page.replace("</body>", f"<script>{{{checks}}}</script></body>")
    file = folder / f"harness-{width}.html"
    file.write_text(_HARNESS.format(width=width, page=escape(page)))
    assert CHROMIUM is not None
    command = [CHROMIUM, *_FLAGS, f"--user-data-dir={folder / 'profile'}", "--dump-dom", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found and found[1], done.stderr
    return json.loads(unescape(found[1]))

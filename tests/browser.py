"""What the tests share that look at pages in a real browser."""

import os
import shutil

import pytest
import stored

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
SCREENSHOTS = stored.ROOT / "build" / "screenshots"
QUIET = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
]  # fmt: skip

needs_chromium = pytest.mark.skipif(
    not CHROMIUM and not os.environ.get("CI"),
    reason="no chromium on the path (on Debian: apt install chromium)",
)

"""Cuts sections out of reports, for docs/report.md, at a size that can be read there.

python docs/report_pictures.py TABLE.html IMAGES.html

The first is the report that docs/tutorials/table.md writes, the second that of
`maskedflow train --dataset digits --time_limit 60`. Needs chromium.
"""

from __future__ import annotations

import base64
import io
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from browser import Browser  # noqa: E402

COLUMN = 900
"""Little more than the width of a page's text here."""


def cut(browser: Browser, page: Path, section: str, name: str, width: int, dark: bool) -> None:
    """Writes a picture of one section of a page."""
    browser.open(page, width, dark=dark)
    tall = {"width": width, "height": 12_000, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.ask("Emulation.setDeviceMetricsOverride", **tall)  # no scroll bar moves the text
    box = f"document.getElementById({section!r}).getBoundingClientRect()"
    left, top, wide, high = browser.value(f"(b => [b.x, b.y, b.width, b.height])({box})")
    clip = {"x": max(left - 12, 0), "y": top, "width": min(wide + 24, width), "height": high + 8}
    clip["scale"] = 2 if width < 500 else 1.25
    for _ in range(2):  # the first may come before all is painted
        answer = browser.ask("Page.captureScreenshot", clip=clip)
    picture = Image.open(io.BytesIO(base64.b64decode(answer["data"]))).convert("RGB")
    picture.quantize(128).save(ROOT / "docs" / "images" / f"report_{name}.png", optimize=True)


def main(table: Path, images: Path) -> None:
    with Browser() as browser:
        for section in ("likelihood", "columns", "correlations", "test", "extremes"):
            cut(browser, table, section, section, COLUMN, dark=False)
        cut(browser, images, "samples", "images", COLUMN, dark=True)
        cut(browser, table, "likelihood", "phone", 390, dark=False)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

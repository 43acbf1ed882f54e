"""A headless Chromium that looks at pages from the disk, as a user does."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")


@contextmanager
def browser(downloads: Path, width: int = 1300, height: int = 1000, dark: bool = False) -> Iterator:
    """Selenium's driver of one, which saves what a page offers into ``downloads``. Skips the test where there is none."""
    pytest.importorskip("selenium", reason="NOT TESTED: needs selenium: pip install 'svco[test]'")
    if not (CHROMIUM and DRIVER):
        pytest.skip("NOT TESTED: needs Chromium: apt-get install chromium chromium-driver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for word in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        f"--window-size={width},{height}",
    ):
        options.add_argument(word)
    if dark:
        options.add_argument("--force-dark-mode")
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    try:
        driver.set_page_load_timeout(60)
        yield driver
    finally:
        driver.quit()


def pixels(shot: bytes) -> np.ndarray:
    """(height, width, 3) of a screenshot, 0 to 255."""
    return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(float)


@contextmanager
def each_look(downloads: Path, page: Path) -> Iterator:
    """``page`` as it looks to people: yields a generator of (driver, name) on wide and narrow, light and dark screens."""
    with browser(downloads) as driver:

        def looks() -> Iterator:
            for scheme in ("light", "dark"):
                for width in (1300, 390):
                    size = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
                    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
                    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
                    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
                    driver.get(f"file://{page}")
                    yield driver, f"{scheme}-{width}"

        yield looks()


def whole(driver: Any, most: int = 16000) -> bytes:
    """A PNG of the whole page, down to ``most`` pixels."""
    size = driver.execute_script("return [innerWidth, document.documentElement.scrollHeight]")
    size = {"width": size[0], "height": min(most, size[1]), "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    return driver.get_screenshot_as_png()


def faults(driver: Any) -> list[str]:
    """What is wrong with the layout of the page that is shown: it scrolls sideways, text lies over text or leaves its picture, or
    cannot be read on what is behind it (WCAG: contrast 4.5, of large text 3)."""
    return driver.execute_script(_FAULTS)


_FAULTS = """
const found = [], root = document.documentElement;
if (root.scrollWidth > root.clientWidth) found.push(`scrolls sideways: ${root.scrollWidth} of ${root.clientWidth}`);
const texts = [];
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walk.nextNode()) {
  const node = walk.currentNode, element = node.parentElement;
  if (!node.data.trim() || element.closest("script, style, #tip, .bar")) continue;
  const range = document.createRange();
  range.selectNodeContents(node);
  for (const box of range.getClientRects())
    if (box.width > 1 && box.height > 1) texts.push({element, box, text: node.data.trim().slice(0, 30)});
}
texts.sort((a, b) => a.box.top - b.box.top);
for (let i = 0; i < texts.length; i++)
  for (let j = i + 1; j < texts.length && texts[j].box.top < texts[i].box.bottom - 3; j++) {
    const [a, b] = [texts[i], texts[j]];
    if (a.element === b.element || a.element.contains(b.element) || b.element.contains(a.element)) continue;
    if (Math.min(a.box.right, b.box.right) - Math.max(a.box.left, b.box.left) > 3)
      found.push(`over each other: "${a.text}" and "${b.text}"`);
  }
const rgb = colour => {
  const part = colour.match(/[\\d.]+/g).map(Number);
  return part.length > 3 ? part : [...part, 1];
};
const light = ([r, g, b]) => [r, g, b].map(v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, n) => sum + v * [0.2126, 0.7152, 0.0722][n], 0);
const behind = element => {
  for (let at = element; at; at = at.parentElement) {
    const colour = rgb(getComputedStyle(at).backgroundColor);
    if (colour[3] > 0.5) return colour;
  }
  return [255, 255, 255, 1];
};
for (const {element, box, text} of texts) {
  const style = getComputedStyle(element), svg = element.closest("svg");
  const [a, b] = [light(rgb(svg ? style.fill : style.color)), light(behind(element))];
  const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.6 && style.fontWeight >= 700);
  if (contrast < (large ? 3 : 4.5)) found.push(`contrast ${contrast.toFixed(1)}: "${text}"`);
  const frame = svg && svg.getBoundingClientRect();
  const beyond = frame && [frame.left - box.left, box.right - frame.right, frame.top - box.top, box.bottom - frame.bottom];
  if (beyond && Math.max(...beyond) > 3)
    found.push(`leaves its picture: "${text}"`);
}
return [...new Set(found)];
"""

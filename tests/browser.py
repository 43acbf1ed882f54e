"""A headless Chromium that looks at pages from the disk, as a user does."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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

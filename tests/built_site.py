"""The website, built once for all tests that look at it: a real build, warnings and all."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

from peftlab.course.site.build import build


@functools.cache
def built_site() -> Path:
    """The folder of the finished site. Raises PeftLabError with what is wrong, if the site cannot be built."""
    folder = Path(tempfile.mkdtemp(prefix="peftlab-site-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return build(folder)

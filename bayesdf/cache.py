"""Where what can be made again is kept: outside the repository, in the user's cache folder."""

import os
from pathlib import Path


def cache_folder(name: str) -> Path:
    """A folder of the cache, made if need be: ``$BAYESDF_CACHE`` or ``~/.cache/bayesdf``, then `name`."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    root = Path(os.environ.get("BAYESDF_CACHE") or Path(home) / "bayesdf")
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder

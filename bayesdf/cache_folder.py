"""Where are things kept that can be made again? Outside the repository, in the user's cache folder."""

import os
from pathlib import Path


def cache_folder(name: str) -> Path:
    """The folder `name` in ``$BAYESDF_CACHE`` or ``~/.cache/bayesdf``. It is created if necessary."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    root = Path(os.environ.get("BAYESDF_CACHE") or Path(home) / "bayesdf")
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder

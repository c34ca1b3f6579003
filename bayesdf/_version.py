"""Which version of the package is this, and which versions does it stand on?"""

import platform
from importlib.metadata import version

__version__ = "0.2.0"


def versions() -> dict[str, str]:
    """Versions of the package, of Python, and of the libraries that results depend on most."""
    libraries = {"torch": "torch", "pyro": "pyro-ppl", "xarray": "xarray"}
    return {
        "bayesdf": __version__,
        "python": platform.python_version(),
        **{name: version(distribution) for name, distribution in libraries.items()},
    }

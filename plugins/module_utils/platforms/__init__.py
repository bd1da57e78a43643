# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One file per platform, found by its name. See docs/architecture.md for what such a file holds."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType


def names() -> list[str]:
    """The platforms there are, by file."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def load(network_os: str) -> ModuleType:
    """The platform for a value of ansible_network_os, an alias of it included.

    Raises ValueError, naming the platforms there are.
    """
    if network_os in names():
        return importlib.import_module(f".{network_os}", __name__)
    for name in names():
        module = importlib.import_module(f".{name}", __name__)
        if network_os in module.ALIASES:
            return module
    raise ValueError(f"unknown platform '{network_os}': set ansible_network_os to one of {', '.join(names())}")

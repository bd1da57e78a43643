# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One file per kind of router, found by its name: the value of ansible_network_os. It has a class `Device(Router)`."""

from __future__ import annotations

import importlib
import pkgutil

from .base import Router


def names() -> list[str]:
    """The kinds of routers there are, by file."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "base")


def kind(network_os: str) -> type[Router]:
    """The class of a kind of router. Raises ValueError, naming the kinds there are."""
    if network_os not in names():
        raise ValueError(f"the lab has no router of the kind '{network_os}', only {', '.join(names())}")
    device: type[Router] = importlib.import_module(f".{network_os}", __name__).Device
    return device

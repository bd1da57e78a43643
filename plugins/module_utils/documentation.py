# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The argument spec of a module, read out of its DOCUMENTATION, so that there is one truth and not two."""

from __future__ import annotations

from typing import Any

import yaml

_SPEC_KEYS = ("type", "elements", "required", "default", "choices", "aliases", "no_log")


def argument_spec(*documentation: str) -> dict[str, dict[str, Any]]:
    """The `options` of a module's DOCUMENTATION and its fragments as an argument spec; suboptions are its `options`."""
    return _spec({name: one for text in documentation for name, one in yaml.safe_load(text)["options"].items()})


def _spec(options: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    spec = {}
    for name, option in options.items():
        spec[name] = {key: option[key] for key in _SPEC_KEYS if key in option}
        if "suboptions" in option:
            spec[name]["options"] = _spec(option["suboptions"])
    return spec

# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The code of the signals as files of a host, for the services and timers that run there without Ansible."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.plugins.lookup import LookupBase

DOCUMENTATION = r"""
name: signals_library
short_description: The code of the signals, as files for a host
description:
  - Every Python file of C(plugins/module_utils/signals) of this collection, for M(isp.hardening.config_files).
  - What runs there as a service is C(python3 -m
    ansible_collections.isp.hardening.plugins.module_utils.signals.NAME) with the directory in C(PYTHONPATH).
version_added: 1.0.0
options:
  _terms:
    description: The directory on the host, one.
    required: true
"""

EXAMPLES = r"""
- name: The code of the services
  isp.hardening.config_files:
    base: /usr/local/lib/isp-hardening
    files: "{{ query('isp.hardening.signals_library', '/usr/local/lib/isp-hardening') }}"
"""

RETURN = r"""
_raw:
  description: Mappings of C(path) and C(content).
  type: list
  elements: dict
"""

PACKAGE = "ansible_collections/isp/hardening/plugins/module_utils/signals"


class LookupModule(LookupBase):
    """Found by the name of its file."""

    def run(
        self, terms: Sequence[str], variables: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> list[dict[str, str]]:
        source = Path(__file__).parents[1] / "module_utils" / "signals"
        return [
            {"path": f"{terms[0]}/{PACKAGE}/{file.name}", "content": file.read_text(encoding="utf-8")}
            for file in sorted(source.glob("*.py"))
        ]

# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From findings to the commands of a push, proved before the first of them is sent."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Push:
    """How a platform takes a change. The commands may hold {minutes} (of the rollback timer) and {session} (a name).

    The lines of the change go between `arm` and `commit`; `confirm` follows over a fresh login; `abort` brings the
    old configuration back at once, and must be harmless where nothing was changed.
    """

    arm: tuple[str, ...]
    commit: tuple[str, ...]
    confirm: tuple[str, ...]
    abort: tuple[str, ...]

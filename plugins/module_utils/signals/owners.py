# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The option `identity` of modules, and who has an address by it: for an abuse desk, and for what is in quarantine."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from .identity import KINDS, Sources, owner, read_sources
from .records import AMBIGUOUS, KNOWN, UNKNOWN, Owner

# The option as modules take it; the documentation of each says the same.
IDENTITY: dict[str, Any] = {
    "type": "dict",
    "default": {},
    "options": {
        **{kind: {"type": "list", "elements": "str"} for kind in KINDS},
        "static": {"type": "dict"},
        "cgn_prefixes": {"type": "list", "elements": "str"},
        "subscriber": {"type": "str", "choices": ["User-Name", "Class", "NAS-Port-Id", "Calling-Station-Id"]},
        "zone": {"type": "str"},
    },
}


def sources_of(identity: Mapping[str, Any]) -> Sources:
    """What the files say. A pattern that matches nothing is told as a file that is not there. Raises ValueError."""
    given = {key: value for key, value in identity.items() if value}
    files = {
        kind: [path for pattern in given.pop(kind, ()) for path in sorted(glob.glob(pattern)) or [pattern]]
        for kind in KINDS
    }
    return read_sources(files, cgn=given.pop("cgn_prefixes", ()), **given)


def tell(sources: Sources, addresses: Iterable[str], time: int, port: int | None = None) -> list[dict[str, Any]]:
    """Who had each of the addresses, as plain data. Raises ValueError for one that is none."""
    found = []
    for address in addresses:
        one = owner(sources, address, time, port)
        found.append({"address": address, **asdict(one), "prefixes": list(one.prefixes)})
    return found


def read_owners(data: Iterable[Any]) -> dict[str, Owner]:
    """What tell() gave, by address. Raises ValueError."""
    found = {}
    for one in data:
        try:
            state, address = one["state"], str(one["address"])
            if state not in (KNOWN, UNKNOWN, AMBIGUOUS):
                raise ValueError(f"{state!r:.20} is no state")
            found[address] = Owner(state, str(one["subscriber"]), reason=str(one["reason"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"owners: not what isp.hardening.address_owner gives ({error!r:.60})") from None
    return found

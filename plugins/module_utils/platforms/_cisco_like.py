# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Reads the configuration of a platform with an industry-standard CLI, which says in a `Dialect` how it differs.

Reading goes in two steps: the text is cut into blocks in one pass (_cisco_text), then groups and lists are read
(_cisco_lists), and where lists are bound (_cisco_places).
"""

from __future__ import annotations

from collections.abc import Callable

from ..filters import DENY, PERMIT, UNKNOWN, Configuration, Filter, NotThisPlatform
from ._cisco_dialect import Dialect
from ._cisco_lists import reader
from ._cisco_places import Filters, Places, interfaces_of
from ._cisco_text import Cut, cut_up

_SAID = {
    PERMIT: "{} permits everything then",
    DENY: "{} denies everything then",
    UNKNOWN: "what {} does then is not documented",
}


def parse(text: str, dialect: Dialect, places: Callable[[Cut, Filters], Places] | None = None) -> Configuration:
    """The configuration's filters, bindings and interfaces. Linear in the text; never raises but NotThisPlatform.

    `places`: what reads the interfaces where they are not like those of the others; it may add filters.
    """
    cut = cut_up(text, dialect)
    if not (cut.lists or cut.interfaces or cut.hostname):
        raise NotThisPlatform(
            f"the text holds no {dialect.title} configuration (no hostname, no interface, no access list): "
            "check ansible_network_os and what the device answered"
        )
    cut.filter_lines += sum(len(block.lines) for block in cut.groups.values())
    cut.filter_lines += sum(not skip for one in cut.lists.values() for _, _, skip in one.lines)
    filters = reader(dialect, cut.groups).read(cut.lists.values())
    interfaces, bindings, doubts, lines = places(cut, filters) if places else interfaces_of(cut, dialect)
    for binding in bindings:
        for name in binding.filters:
            if (binding.family, name) not in filters:
                # `common A B`: no document says what a permit of the first list means to the second.
                does = UNKNOWN if " " in name else dialect.undefined
                text = f"{name} is bound and not defined: {_SAID[does].format(dialect.title)}"
                filters[binding.family, name] = Filter(name, binding.family, (), does, binding.line, text)
    doubts = tuple(sorted((*cut.doubts, *doubts), key=lambda doubt: doubt.line))
    return Configuration(filters, bindings, interfaces, doubts, cut.hostname, cut.filter_lines + lines)

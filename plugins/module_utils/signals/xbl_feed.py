# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The feed of a DNSBL, as its maker hands it out by rsync: files that rbldnsd would serve.

What is listed in any of the files is listed. RFC 5782 5: the test entries show that they are whole.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from .xbl import (
    LISTED_TESTS,
    UNLISTED_TESTS,
    Answer,
    Doubt,
    Listing,
    Ranges,
    checked,
    followed,
    lists_of,
    plausible,
    prefixes_of,
)
from .xbl_rbldnsd import Content, Dataset, read_dataset


@dataclass(frozen=True, slots=True)
class Feed:
    """The files of a feed; what is listed in any of them is listed."""

    datasets: tuple[Dataset, ...]

    def ask(self, own: Sequence[str], first: Sequence[str] = ()) -> Answer:
        """What the files say of the own prefixes. All of them are read, so that `first` is of no matter."""
        mine = Ranges(own)
        ranges = Ranges([*own, *(address for both in (LISTED_TESTS, UNLISTED_TESTS) for address in both.values())])
        try:
            contents = [read_dataset(dataset, ranges, time.time()) for dataset in self.datasets]
            for family in (4, 6):
                _self_test(contents, family, [one for one in self.datasets if one.kind.startswith(f"ip{family}")])
            listed = sum(content.count(mine, _followed) for content in contents)
            plausible("feed", listed, sum(one.num_addresses for one in mine.of(4)))
            found = dict.fromkeys(
                Listing(network, name, code)
                for content in contents
                for network, answer in content.listed(mine, _followed)
                for name, code in lists_of([answer], "the feed")
            )
        except Doubt as doubt:
            return checked(Answer("feed", frozen=str(doubt)), mine)
        read = {4 if dataset.kind.startswith("ip4") else 6 for dataset in self.datasets}
        unread = prefixes_of(one for one in mine.networks if one.version not in read)
        problems = (f"feed: no file is about {', '.join(unread)}; name one of IPv6 too",) if unread else ()
        return checked(Answer("feed", tuple(found), unread, problems), mine)


def _followed(code: str) -> bool:
    return followed(code, "the feed")


def _self_test(contents: Sequence[Content], family: int, datasets: Sequence[Dataset]) -> None:
    if not datasets:
        return
    files = ", ".join(dataset.path for dataset in datasets)
    listed, unlisted = (
        any(content.answers(tests[family]) for content in contents) for tests in (LISTED_TESTS, UNLISTED_TESTS)
    )
    if not listed:
        raise Doubt(
            f"{files}: {LISTED_TESTS[family]} is not listed, as RFC 5782 has it; is the file whole? Where the maker"
            " keeps the test entries in another file, name that one too"
        )
    if unlisted:
        raise Doubt(f"{files}: {UNLISTED_TESTS[family]} is listed, and so may be everything; ask the maker of the feed")

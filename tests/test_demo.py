# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What `make demo` shows is true: it ends with an error otherwise."""

from __future__ import annotations

import sys

import pytest

from tests.conftest import Run


@pytest.mark.usefixtures("lab_ports")
def test_the_demo_keeps_its_promises(run: Run) -> None:
    shown = run(sys.executable, "-m", "tools.demo", env={"ANSIBLE_NOCOLOR": "1"}, timeout=1200)
    assert shown.returncode == 0, shown.stdout

# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the roles of the MTAs check, with the Postfix of this machine, and what they write for Dovecot."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

ROLES = Path(__file__).resolve().parents[2] / "roles"
SIDES = ("mta_inbound", "mta_outbound")
SQL = {"source": "sql", "sql_driver": "pgsql", "sql_host": "db", "sql_database": "mail", "sql_user": "mail",
       "sql_password": "secret", "sql_query": "SELECT password FROM users WHERE login = '%u'"}  # fmt: skip


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    ("tables", "accepted"),
    [
        (["static:none"], True),
        (["proxy:static:none"], True),  # no proxymap runs for these settings
        (["inline:{ {user@example.net = OK} }"], True),
        (["static:none", "texthash:/nonexistent"], False),
        (["proxy:texthash:/nonexistent"], False),
    ],
)
def test_a_table_is_read_before_it_is_used(side: str, tables: list[str], accepted: bool, tmp_path: Path) -> None:
    if not shutil.which("postmap"):
        pytest.skip("Postfix is not installed")
    (tmp_path / "main.cf").write_text(f"compatibility_level = 3.6\nqueue_directory = {tmp_path}\n")
    (tmp_path / "master.cf").write_text("")
    tasks = yaml.safe_load((ROLES / side / "tasks" / "main.yml").read_text(encoding="utf-8"))
    (script,) = (task["vars"]["read_tables"] for task in tasks if "read_tables" in task.get("vars", {}))
    command = ["sh", "-c", script.replace("{stage}", str(tmp_path)), "sh", *tables]
    answer = subprocess.run(command, capture_output=True, timeout=20, check=False)
    assert (answer.returncode == 0) == accepted, answer.stdout


@pytest.mark.parametrize("side", SIDES)
def test_nothing_comes_between_the_settings_and_their_reload(side: str) -> None:
    """Between the two each new smtpd has the new main.cf behind what the old master.cf has listen."""
    tasks = yaml.safe_load((ROLES / side / "tasks" / "main.yml").read_text(encoding="utf-8"))
    at = next(at for at, task in enumerate(tasks) if task["name"].startswith("Settings"))
    assert tasks[at]["isp.hardening.config_files"]["base"] == "/etc/postfix"
    assert tasks[at + 1]["ansible.builtin.meta"] == "flush_handlers"


@pytest.mark.parametrize(("release", "name"), [("12", "default_pass_scheme"), ("13", "passdb_default_password_scheme")])
def test_a_hash_of_a_database_is_never_taken_for_a_password(release: str, name: str) -> None:
    template = (ROLES / "mta_outbound" / "templates" / "users.j2").read_text(encoding="utf-8")
    facts: dict[str, Any] = {"ansible_facts": {"distribution_major_version": release}, "mta_outbound_users": SQL}
    lines = [line.strip() for line in jinja2.Template(template).render(facts).splitlines()]
    assert f"{name} = CRYPT" in lines

# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The habits of the house that no linter knows: links, versions, documentation, pages, what is never in a file."""

from __future__ import annotations

import functools
import json
import re
import shutil
import subprocess
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from ansible_collections.isp.hardening.plugins.module_utils.signals.policy import ROOT_SERVERS
from tests.conftest import Run

ROOT = Path(__file__).resolve().parents[2]
COLLECTION = ("galaxy.yml", "meta", "playbooks", "plugins", "roles")
_HEADER = "# Copyright: isp.hardening contributors\n# GNU General Public License v3.0+"
_PREFIX = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?:/\d{1,2}\b)?(?![\w.]*\d)")
_SECTION = re.compile(r"\bRFC \d+[^\n]*")  # what follows on the line are sections, not addresses
_DOCUMENTATION = [IPv4Network(prefix) for prefix in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")]
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


@functools.cache
def tracked() -> tuple[Path, ...]:
    """Every file of the project, as git knows them; links are left out."""
    command = ["git", "ls-files", "-z"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if listing.returncode:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listing.stdout.decode().split("\0") if name]
    return tuple(path for path in paths if path.is_file() and not path.is_symlink())


def texts(*suffixes: str) -> Iterator[tuple[Path, str]]:
    """The tracked files that end so (any text file when no suffix is given), each with its text."""
    for path in tracked():
        if not suffixes or path.suffix in suffixes:
            try:
                yield path.relative_to(ROOT), path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue


def load(name: str) -> dict[str, object]:
    return dict(yaml.safe_load((ROOT / name).read_text(encoding="utf-8")))


def project() -> dict[str, object]:
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"])


# -- the checkout is the collection ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COLLECTION)
def test_the_links_make_the_checkout_a_collection(name: str) -> None:
    link = ROOT / ".collections" / "ansible_collections" / "isp" / "hardening" / name
    assert link.is_symlink()
    assert not link.readlink().is_absolute()
    assert link.resolve() == ROOT / name


def test_one_version_everywhere() -> None:
    version = load("galaxy.yml")["version"]
    assert project()["version"] == version
    assert version in load("changelogs/changelog.yaml")["releases"], "no release notes: antsibull-changelog release"


def test_the_lowest_ansible_is_told_once() -> None:
    (bound,) = [str(name) for name in project()["dependencies"] if str(name).startswith("ansible-core")]
    assert load("meta/runtime.yml")["requires_ansible"] == bound.removeprefix("ansible-core")


def test_the_collection_asks_for_no_other_collection() -> None:
    assert load("galaxy.yml")["dependencies"] == {}


# -- documentation -----------------------------------------------------------------------------------------------


def plugins(kind: str) -> list[str]:
    """The names of the plugins of a kind that Ansible's documentation knows."""
    folder = ROOT / "plugins" / ("modules" if kind == "module" else kind)
    return sorted(path.stem for path in tracked() if path.parent == folder and path.suffix == ".py")


KINDS = [kind for kind in ("module", "connection", "filter", "lookup", "callback") if plugins(kind)]


def test_every_action_has_the_module_that_documents_it() -> None:
    assert set(plugins("action")) - set(plugins("module")) == set()


@pytest.mark.parametrize("kind", KINDS)
def test_every_plugin_is_documented(kind: str, run: Run) -> None:
    names = [f"isp.hardening.{name}" for name in plugins(kind)]
    answer = run("ansible-doc", "--json", "--type", kind, *names)
    assert answer.returncode == 0, answer.stdout
    pages = json.loads(answer.stdout[answer.stdout.index("{") :])
    for name in names:
        page = pages[name]
        documentation = page["doc"]
        assert documentation["short_description"], name
        for option, told in documentation.get("options", {}).items():
            assert told.get("description"), f"{name}: option {option} has no description"
        if kind == "module":
            assert yaml.safe_load(page["examples"]), f"{name}: EXAMPLES is empty"
            assert name in page["examples"], f"{name}: EXAMPLES does not use the full name"
            assert page["return"], f"{name}: RETURN is empty"


def test_every_python_file_says_what_it_is_for() -> None:
    said = re.compile(r'^(?:"""|DOCUMENTATION = )', re.MULTILINE)
    assert [str(path) for path, text in texts(".py") if text.strip() and not said.search(text)] == []


def test_every_plugin_says_its_licence() -> None:
    pages = [(path, text) for path, text in texts(".py") if path.parts[0] == "plugins"]
    assert [str(path) for path, text in pages if not text.removeprefix("#!/usr/bin/python\n").startswith(_HEADER)] == []


def test_every_link_between_pages_leads_somewhere() -> None:
    for path, text in texts(".md"):
        for target in _LINK.findall(text):
            if "://" not in target and not target.startswith("mailto:"):
                assert (ROOT / path.parent / target).exists(), f"{path}: the link to {target} is broken"


def test_every_make_target_that_a_page_names_exists() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for path, text in texts(".md"):
        named = set(re.findall(r"(?:^|`)make ([a-z][a-z-]*)", text, re.MULTILINE))
        assert named <= targets, f"{path} names targets that the Makefile has not: {sorted(named - targets)}"


# -- what is never in a file -------------------------------------------------------------------------------------


def test_no_file_names_this_machine() -> None:
    paths = {f"{folder}/" for folder in (ROOT, ROOT.parent, Path.home()) if len(folder.parts) > 1}
    for path, text in texts():
        named = [word for word in paths if re.search(rf"(?<![\w.~-]){re.escape(word)}", text)]
        assert not named, f"{path} names a path of the machine that it was written on"


def test_the_lock_names_one_public_index() -> None:
    lock = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
    indexes = {json.dumps(package["source"]) for package in lock["package"] if package["name"] != "isp-hardening"}
    assert len(indexes) == 1
    addresses = [file["url"] for package in lock["package"] for file in package.get("wheels", [])]
    assert {urlsplit(address)[:2] for address in addresses} == {("https", urlsplit(addresses[0]).netloc)}
    assert (urlsplit(addresses[0]).hostname or "").endswith(".org")
    assert all(file["hash"] for package in lock["package"] for file in package.get("wheels", []))


def around(network: IPv4Network, ours: IPv4Network) -> bool:
    """A prefix that holds ours, or ours under a mask that leaves octets out: 198.51.0.0, 198.0.100.0."""
    octets = zip(network.network_address.packed, ours.network_address.packed, strict=True)
    return network.supernet_of(ours) or all(octet in (0, own) for octet, own in octets)


def test_only_documentation_addresses() -> None:
    strangers = []
    for path, text in texts():
        if path.name == "uv.lock" or path.parts[0] == "changelogs":
            continue
        # The root servers, which nobody may ever black-hole, have to be the real ones.
        for word in set(_PREFIX.findall(_SECTION.sub("", text))) - set(ROOT_SERVERS):
            try:
                network = IPv4Network(word, strict=False)
            except ValueError:
                continue
            first = network.network_address
            if first.is_global and not first.is_multicast and not any(around(network, ours) for ours in _DOCUMENTATION):
                strangers.append(f"{path}: {word}")
    assert not strangers, "addresses that belong to somebody (take RFC 5737's):\n" + "\n".join(sorted(strangers))


# -- what is built -----------------------------------------------------------------------------------------------


def documented_at(run: Run, env: dict[str, str], cwd: Path) -> list[str]:
    """Where ansible-doc finds every module of the collection, run outside of the checkout."""
    names = [f"isp.hardening.{name}" for name in plugins("module")]
    answer = run("ansible-doc", "--json", "--type", "module", *names, cwd=cwd, env=env)
    assert answer.returncode == 0, answer.stdout
    pages = json.loads(answer.stdout[answer.stdout.index("{") :])
    return [pages[name]["doc"]["filename"] for name in names]


def test_the_wheel_is_the_collection(run: Run, tmp_path: Path) -> None:
    built = run("hatchling", "build", "--target", "wheel", "--directory", str(tmp_path))
    assert built.returncode == 0, built.stdout
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)  # which is how a wheel without binaries is installed
    prefix = "ansible_collections/isp/hardening/"
    inside = {str(path.relative_to(site)).removeprefix(prefix) for path in site.rglob("*") if path.is_file()}
    expected = {str(path.relative_to(ROOT)) for path in tracked() if path.relative_to(ROOT).parts[0] in COLLECTION}
    assert expected <= inside
    assert all(name.startswith((*COLLECTION, "isp_hardening-")) for name in inside)
    found = documented_at(run, {"PYTHONPATH": str(site)}, tmp_path)
    assert all(Path(name).is_relative_to(site) for name in found), found


def test_the_galaxy_archive_is_the_collection(run: Run, tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    for path in tracked():
        copy = checkout / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    built = run("ansible-galaxy", "collection", "build", "--output-path", str(tmp_path), cwd=checkout)
    assert built.returncode == 0, built.stdout
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as content:
        tops = {name.split("/")[0] for name in content.getnames()}
    strangers = tops - {*COLLECTION, "MANIFEST.json", "FILES.json", "LICENSE", "README.md", "CHANGELOG.md"}
    assert strangers <= {"CONTRIBUTING.md", "changelogs", "docs", "inventories"}
    home = tmp_path / "collections"
    # Without this, Ansible finds the checkout in Python's own path and calls the collection installed already.
    env = {"ANSIBLE_COLLECTIONS_PATH": str(home), "ANSIBLE_COLLECTIONS_SCAN_SYS_PATH": "false"}
    command = ("ansible-galaxy", "collection", "install", "--offline", "-p", str(home), str(archive))
    installed = run(*command, cwd=tmp_path, env=env)
    assert installed.returncode == 0, installed.stdout
    found = documented_at(run, env, tmp_path)
    assert all(Path(name).is_relative_to(home) for name in found), found

# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The files of one service: compared, tried by the daemon itself in a copy of its directory, replaced together.

Nothing is written outside of the copy before every check has passed. When a file cannot be replaced, those that were
replaced before are put back. Runs on a mail host: needs the standard library alone.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .secrets import HIDDEN, redact_lines

NOT_SHOWN = "(secret, not shown)\n"
STAGE = "{stage}"
_SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")  # a login that is not root's may not have them in its PATH
_CHECK_SECONDS = 300
_GRAM = 5  # a run of so many characters of a secret file is hidden in what a check says
_SAID = 4000  # characters of a check's output that are told


class Refused(Exception):
    """Why nothing was changed."""


class HalfDone(Exception):
    """A change failed and could not be taken back; what is where now."""


@dataclass(frozen=True)
class Wanted:
    """A file as it has to be."""

    path: str
    content: bytes = field(repr=False)
    secret: bool
    owner: str
    group: str
    mode: int


@dataclass(frozen=True)
class Present:
    """What is at a path now: a file, a symlink (then `link` says where to), or nothing (then it is None)."""

    content: bytes = field(repr=False)
    uid: int
    gid: int
    mode: int
    link: str = ""

    @property
    def secret(self) -> bool:
        """Not everybody may read it, so nobody is shown it."""
        return not self.link and not self.mode & stat.S_IROTH


@dataclass(frozen=True)
class Step:
    """What happens at one path; `wanted` is None where the file goes."""

    path: str
    present: Present | None
    wanted: Wanted | None
    uid: int = -1
    gid: int = -1

    @property
    def changed(self) -> bool:
        if self.wanted is None or self.present is None:
            return not (self.wanted is None and self.present is None)
        old, new = self.present, self.wanted
        return bool(old.link) or (old.content, old.uid, old.gid, old.mode) != (
            new.content,
            self.uid,
            self.gid,
            new.mode,
        )


def read_wanted(files: Iterable[Mapping[str, str | None]], absent: Sequence[str]) -> list[Wanted]:
    """The files of the module's options. Raises Refused for a path or a mode that makes no sense."""
    wanted = []
    for entry in files:
        secret = entry.get("secret_content")
        mode = str(entry["mode"])
        if not re.fullmatch(r"0?[0-7]{3}", mode):
            raise Refused(f"{entry['path']}: mode '{mode}' is no octal number such as 0644")
        text = entry.get("content") if secret is None else secret
        wanted.append(
            Wanted(
                str(entry["path"]), str(text).encode(), secret is not None,
                str(entry["owner"]), str(entry["group"]), int(mode, 8),
            )
        )  # fmt: skip
    paths = [one.path for one in wanted] + list(absent)
    for path in paths:
        if not path.startswith("/") or os.path.normpath(path) != path:
            raise Refused(f"{path}: is no plain absolute path")
        if paths.count(path) > 1:
            raise Refused(f"{path}: is listed twice")
    return wanted


def look(path: str) -> Present | None:
    """What is there. Raises Refused for what no file can take the place of."""
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISLNK(status.st_mode):
        return Present(b"", status.st_uid, status.st_gid, mode, os.readlink(path))
    if not stat.S_ISREG(status.st_mode):
        raise Refused(f"{path}: is a directory or a device, and no file")
    return Present(Path(path).read_bytes(), status.st_uid, status.st_gid, mode)


def plan(wanted: Iterable[Wanted], absent: Iterable[str], missing: Callable[[str], None]) -> list[Step]:
    """A step for every path. `missing` is told of a user or group that is not there (yet)."""
    steps = []
    for one in wanted:
        uid = _id(one.owner, lambda name: pwd.getpwnam(name).pw_uid, f"user {one.owner}", missing)
        gid = _id(one.group, lambda name: grp.getgrnam(name).gr_gid, f"group {one.group}", missing)
        steps.append(Step(one.path, look(one.path), one, uid, gid))
    return steps + [Step(path, look(path), None) for path in absent]


def _id(name: str, find: Callable[[str], int], what: str, missing: Callable[[str], None]) -> int:
    if name.isdecimal():
        return int(name)
    try:
        return find(name)
    except KeyError:
        missing(f"{what} is not there")
        return -1


def diff(step: Step) -> dict[str, str]:
    """The change as Ansible shows it; the content of a secret file never."""
    before = after = ""
    if step.present:
        before = f"(symlink to {step.present.link})\n" if step.present.link else _shown(step.present.content)
        before = NOT_SHOWN if step.present.secret else before
    if step.wanted:
        after = NOT_SHOWN if step.wanted.secret else _shown(step.wanted.content)
        before = NOT_SHOWN if step.wanted.secret and step.present else before
    if step.present and step.wanted and not step.present.link:
        old = f"{_name(pwd.getpwuid, step.present.uid)}:{_name(grp.getgrgid, step.present.gid)} {step.present.mode:04o}"
        new = f"{step.wanted.owner}:{step.wanted.group} {step.wanted.mode:04o}"
        if old != new:
            before, after = f"({old})\n{before}", f"({new})\n{after}"
        elif before == after:
            after = "(secret, changed, not shown)\n" if after == NOT_SHOWN else f"{after}(a secret in it changes)\n"
    return {"before_header": step.path, "after_header": step.path, "before": before, "after": after}


def _shown(content: bytes) -> str:
    """The text; a file that everybody may read, somebody else's for example, can have a password in it all the same."""
    return "\n".join(redact_lines(content.decode(errors="replace").split("\n")))


def _name(find: Callable[[int], Sequence[object]], number: int) -> str:
    try:
        return str(find(number)[0])
    except KeyError:
        return str(number)


# -- the stage ---------------------------------------------------------------------------------------------------


def stage(base: str, into: str, steps: Iterable[Step]) -> None:
    """A copy of `base` in the directory `into`, as it will be after the steps, with its includes led into the copy."""
    if os.path.isdir(base):
        _copy(base, base, into, into)
    for step in steps:
        place = _inside(step.path, base, into)
        if not place:
            continue
        _own_folders(os.path.dirname(place), into)
        if os.path.lexists(place):
            os.unlink(place)  # never through a symlink: it may lead out of the copy
        if step.wanted:
            Path(place).write_bytes(_led(step.wanted.content, base, into))
            os.chmod(place, step.wanted.mode)
            os.chown(place, step.uid, step.gid)


def _copy(source: str, base: str, target: str, into: str) -> None:
    """Directories, files and symlinks; a socket or a pipe is no configuration."""
    os.makedirs(target, exist_ok=True)
    for entry in os.scandir(source):
        place = os.path.join(target, entry.name)
        if entry.is_symlink():
            link = os.path.normpath(os.path.join(source, os.readlink(entry.path)))
            os.symlink(_inside(link, base, into) or link, place)
        elif entry.is_dir():
            _copy(entry.path, base, place, into)
        elif entry.is_file():
            content = Path(entry.path).read_bytes()
            Path(place).write_bytes(content if b"\0" in content else _led(content, base, into))
        else:
            continue
        _same_owner(entry.path, place)


def _same_owner(source: str, target: str) -> None:
    status = os.lstat(source)
    os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(target, stat.S_IMODE(status.st_mode))


def _inside(path: str, base: str, into: str) -> str:
    """Where a path of the base is in the copy; "" for a path outside of it."""
    return into + path[len(base) :] if path.startswith(f"{base}/") else ""


def _led(content: bytes, base: str, into: str) -> bytes:
    """Paths of the base become paths of the copy; /x/etc/unbound/y is none of /etc/unbound."""
    return re.sub(rb"(?<![\w.~-])" + re.escape(f"{base}/".encode()), lambda _: f"{into}/".encode(), content)


def _own_folders(folder: str, into: str) -> None:
    """The folder is there, and no symlink leads from it out of the copy: what it leads to is copied instead."""
    if folder == into:
        return
    _own_folders(os.path.dirname(folder), into)
    if os.path.islink(folder) and not os.path.realpath(folder).startswith(f"{os.path.realpath(into)}/"):
        leads_to = os.path.realpath(folder)
        os.unlink(folder)
        if os.path.isdir(leads_to):
            _copy(leads_to, leads_to, folder, folder)
    os.makedirs(folder, exist_ok=True)


def program(command: Sequence[str]) -> str | None:
    """Where the program of a command is, None where it is not installed."""
    return shutil.which(command[0], path=os.pathsep.join([os.environ.get("PATH", os.defpath), *_SBIN]))


def check(
    commands: Iterable[Sequence[str]], environment: Mapping[str, str], base: str, into: str, steps: Sequence[Step]
) -> None:
    """Every command must end with 0. Raises Refused with what it said, without a piece of a secret file."""
    surroundings = os.environ | {"LC_ALL": "C"}
    surroundings |= {name: value.replace(STAGE, into) for name, value in environment.items()}
    for command in commands:
        path = program(command)
        if path is None:
            raise Refused(f"{command[0]} is not installed, and nothing else can check the files")
        words = [path, *(word.replace(STAGE, into) for word in command[1:])]
        told = " ".join(command).replace(STAGE, base)
        try:
            answer = subprocess.run(
                words, env=surroundings, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                timeout=_CHECK_SECONDS, check=False, cwd="/",
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise Refused(f"'{told}' did not end within {_CHECK_SECONDS} s") from error
        except OSError as error:
            raise Refused(f"'{told}' cannot be run: {error.strerror}") from error
        if answer.returncode:
            said = answer.stdout.decode(errors="replace").replace(into, base).strip()
            said = hide(said[-_SAID:], *_secret_and_public(base, steps))
            raise Refused(f"'{told}' refused the files (exit code {answer.returncode}): {said or '(it said nothing)'}")


def _secret_and_public(base: str, steps: Sequence[Step]) -> tuple[list[str], list[str]]:
    """The texts that nobody may see, those of others in the base included, and the texts that everybody may."""
    secret: list[str] = []
    public = [step.path for step in steps]
    for step in steps:
        for file in (step.present, step.wanted):
            if file is not None:
                hidden = file.secret or (step.wanted is not None and step.wanted.secret)
                (secret if hidden else public).append(file.content.decode(errors="replace"))
    ours = {step.path for step in steps}
    for folder, _, names in os.walk(base):
        for path in (os.path.join(folder, name) for name in names):
            public.append(path)
            status = os.lstat(path)
            if stat.S_ISREG(status.st_mode) and not status.st_mode & stat.S_IROTH and path not in ours:
                secret.append(Path(path).read_text(encoding="utf-8", errors="replace"))
    return secret, public


def hide(said: str, secret: Iterable[str], public: Iterable[str]) -> str:
    """The text without any run of characters that is in a secret text and in no public one."""
    known = {gram for text in secret for gram in _grams(text)}
    known -= {gram for text in public for gram in _grams(text)}
    hidden = [False] * len(said)
    for start, gram in enumerate(_grams(said)):
        if gram in known:
            hidden[start : start + _GRAM] = [True] * _GRAM
    pieces = []
    for index, character in enumerate(said):
        if not hidden[index]:
            pieces.append(character)
        elif not index or not hidden[index - 1]:
            pieces.append(HIDDEN)
    return "".join(pieces)


def _grams(text: str) -> list[str]:
    return [text[start : start + _GRAM] for start in range(len(text) - _GRAM + 1)]


# -- the change --------------------------------------------------------------------------------------------------


def install(steps: Sequence[Step]) -> None:
    """All of the steps, or none: what was done is taken back when one fails. Raises Refused then, or HalfDone."""
    folders: list[str] = []
    ready: list[tuple[Step, str]] = []
    done: list[Step] = []
    try:
        for step in steps:
            if step.wanted:
                _make_folders(os.path.dirname(step.path), folders)
                ready.append((step, _beside(step.path, step.wanted.content, step.uid, step.gid, step.wanted.mode)))
        for step, new in ready:
            os.replace(new, step.path)
            done.append(step)
        for step in steps:
            if not step.wanted:
                os.unlink(step.path)
                done.append(step)
    except OSError as error:
        failed = f"{error.filename2 or error.filename}: {error.strerror}"
        for _, new in ready:
            with contextlib.suppress(OSError):  # what lies around matters less than what is put back
                os.unlink(new)
        stays = []
        for step in reversed(done):
            try:
                _put_back(step)
            except OSError as again:
                stays.append(f"{step.path} stays changed, as {again.strerror}")
        for folder in reversed(folders):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
        if stays:
            raise HalfDone("; ".join([failed, *stays])) from error
        raise Refused(failed) from error


def _make_folders(folder: str, made: list[str]) -> None:
    if not os.path.isdir(folder):
        _make_folders(os.path.dirname(folder), made)
        os.mkdir(folder)
        made.append(folder)
        os.chmod(folder, 0o755)


def _beside(path: str, content: bytes, uid: int, gid: int, mode: int) -> str:
    """A new file next to `path`, complete, with its owner and mode, under a name that no include takes in."""
    handle, new = tempfile.mkstemp(dir=os.path.dirname(path), prefix=f".{os.path.basename(path)}.", suffix=".new")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            os.fchown(handle, uid, gid)
            os.fchmod(handle, mode)
            file.flush()
            os.fsync(handle)
    except OSError:
        os.unlink(new)
        raise
    return new


def _put_back(step: Step) -> None:
    old = step.present
    if old is None:
        os.unlink(step.path)
    elif old.link:
        Path(step.path).unlink(missing_ok=True)
        os.symlink(old.link, step.path)
    else:
        os.replace(_beside(step.path, old.content, old.uid, old.gid, old.mode), step.path)

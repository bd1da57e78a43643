# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""On the lab's hosts every Python imports this at its start, and keeps what it compiles out of ZIP files.

A module of Ansible comes as a ZIP of sources, and to compile them anew is a third of what it costs; a run of the lab
has hundreds. Python itself keeps only what it compiles out of directories.
"""

import contextlib
import marshal
import os
import zipimport
import zlib

FOLDER = "/var/tmp/zip-cache"
_compile = zipimport._compile_source


def compiled(path, source):
    """The code object of a source in a ZIP; `path` names the ZIP, and the file in it."""
    inside = path.rpartition(".zip")[2].replace("/", "-")
    name = f"{FOLDER}/{inside}-{len(source)}-{zlib.crc32(source):08x}"
    try:
        with open(name, "rb") as file:
            return marshal.load(file)
    except OSError:
        code = _compile(path, source)
    with contextlib.suppress(OSError):  # not everybody may write there
        os.makedirs(FOLDER, exist_ok=True)
        with open(f"{name}.{os.getpid()}", "wb") as file:
            marshal.dump(code, file)
        os.replace(file.name, name)
    return code


zipimport._compile_source = compiled

# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether a certificate and its key can serve: both there, the key for no strange eyes, the two a pair.

Runs on a mail host: needs the standard library alone.
"""

from __future__ import annotations

import os
import ssl
import stat


def problem(certificate: str, key: str) -> str:
    """What is wrong, and the mend; "" for nothing."""
    try:
        for what, path in (("certificate", certificate), ("key", key)):
            if not os.path.isfile(path):
                return f"the TLS {what} {path} is not on the host: put it there, or name another in isp_mail.tls"
        if os.stat(key).st_mode & stat.S_IRWXO:
            return f"everybody on the host can get at the TLS key {key}: chmod o= {key}"
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        # OpenSSL keeps a key of another kind than the certificate's apart, and then misses the certificate to it.
        if error.reason in ("KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED"):
            return f"the TLS key {key} is not the key of the certificate {certificate}: put the pair there"
        why = f"{certificate} and {key} are no certificate and key in PEM form without a password that can serve"
        return f"{why} (OpenSSL says {error.reason}): put such ones there"
    except (OSError, ValueError) as error:
        return f"the TLS certificate {certificate} and its key {key} cannot be read: {error}"
    return ""

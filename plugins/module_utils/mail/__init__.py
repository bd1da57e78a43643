# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Mail hosts: their part of the policy, what their daemons' configuration means, and how they answer.

What runs on a mail host itself imports the standard library alone.
"""

# What the resolver of a mail host calls the DNSBL behind its key, so that no other program and no log has to know it.
DNSBL_ALIAS = "dnsbl.internal"

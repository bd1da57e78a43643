# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The signals: who is infected, by what hosts do and by what lists say of them; and what is done about it."""

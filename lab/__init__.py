# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The lab: routers that speak their vendor's CLI over real SSH on loopback. Shares no code with plugins/."""

# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Scripts that write pages of the documentation, and the demo. A package, because Aerleon installs one of this name."""

"""The mail hosts of the lab: systemd containers on one wire, with a world of their own around them."""

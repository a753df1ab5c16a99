"""What stands behind the ``tuntap`` command; `tuntap.cli` reads its arguments."""

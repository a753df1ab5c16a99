"""One compiled core per operating system, always under the name ``tuntap._os.native``."""

"""Portable packet code: bytes in, bytes out; no system call, no OS header."""

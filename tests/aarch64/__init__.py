"""Agents of another architecture: aarch64 under qemu-user, beside one of this machine's own."""

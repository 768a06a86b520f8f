"""Where agents run: processes of this machine, network namespaces, an emulated network, or other devices."""

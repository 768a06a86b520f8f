"""Re-planning during a run: in virtual time within this process, in real time in a separate one."""

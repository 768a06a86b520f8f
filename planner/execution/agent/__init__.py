"""The agent: one worker of a run, on a device."""

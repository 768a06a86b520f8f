"""The agent: acts as one worker of each run, on a device."""

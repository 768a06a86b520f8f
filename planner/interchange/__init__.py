"""Files of other projects as a way in and out: their devices, models and schedules as scenarios, profiles and plans."""

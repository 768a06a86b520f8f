"""Prediction against measurement: numerics, delays, verdict."""

"""Scenario files for the tests of this folder."""

from __future__ import annotations

from pathlib import Path

GOOD = """\
schema: planner/scenario/v1
profiles: [profiles]
models:
  classifier: {path: models/mobilenetv2.onnx}
  tagger: {profile: tagger}
workers:
  gate: {device_class: small, memory: 3 GiB, speed: 0.5}
  yard: {device_class: large, memory: 6 GiB, base_memory: 100 MiB}
  hall: {device_class: large, memory: 6 GiB}
networks:
  wifi: {kind: shared, members: [gate, yard], bandwidth: 54 Mbit/s, latency: 3 ms, relay: access-point}
  wire: {kind: point-to-point, links: [[yard, hall]], bandwidth: 1 Gbit/s}
sources:
  gate-camera: {worker: gate, models: [classifier], rate: 5 /s, priority: 8,
    max_mean_delay: 250 ms, deadline: 400 ms, min_accuracy: 85 %}
  yard-camera: {worker: yard, models: [classifier, tagger], arrivals: batch, samples: 20}
objective: {goal: delay, accuracy_worth: 50 ms}
policy: {ring: [gate, yard, hall], neighbours: {gate: [yard]}}
events:
  - {at: 60 s, worker: yard, action: leave}
  - {at: 2 min, source: gate-camera, action: rate, rate: 20 /s}
"""


def write(folder: Path, text: str) -> Path:
    """Write a scenario file."""
    path = folder / "scenario.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def changed(*changes: tuple[str, str], text: str = GOOD) -> str:
    """Change the good scenario: each pair is a piece of its text, found once, and what stands there instead."""
    for old, new in changes:
        assert text.count(old) == 1, f"{old!r} is there {text.count(old)} times"
        text = text.replace(old, new)
    return text

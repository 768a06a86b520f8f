"""Example command lines, shown at the end of each command's help."""

from __future__ import annotations

from typing import Final

EXAMPLES: Final = {
    "demo": ("planner demo",),
    "new": ("planner new street", "planner new desk --from jetsons", "planner new chat --from tokens"),
    "models": ("planner models list", "planner models build resnet50 -o models/resnet50.onnx"),
    "inspect": ("planner inspect models/resnet50.onnx --picture chain.svg",),
    "split": ("planner split models/resnet50.onnx --cuts 3,6 -o parts",),
    "profile": (
        "planner profile measure models/resnet50.onnx --device-class nano-cpu",
        "planner profile estimate models/resnet50.onnx --device-class jetson-nano",
        "planner profile estimate models/resnet50.onnx --device-class nano-cpu --adapt profiles/nano-cpu",
        "planner profile import models/resnet50.onnx times.json --device-class nano-tensorrt",
        "planner profile scale profiles/nano-cpu/resnet50.json --by 2.5 --device-class slow-cpu",
        "planner profile show profiles/nano-cpu/resnet50.json --picture costs.svg",
        "planner profile diff profiles/nano-cpu/resnet50.json profiles/slow-cpu/resnet50.json",
    ),
    "probe-device": ("planner probe-device --device-class nano-cpu",),
    "convert": (
        "planner convert --from pipeedge models.yml device_types.yml devices.yml -o converted",
        "planner convert --from saga instance.json -o converted",
        "planner convert --from helix cluster.ini machine_profile.ini --set layers=80 -o converted",
    ),
    "solve": (
        "planner solve scenario.yaml -o plan.json --picture plan.svg",
        "planner solve scenario.yaml --routes shared --time-limit 20s --prices",
    ),
    "size": (
        "planner size scenario.yaml --catalogue devices.yaml -o sized",
        "planner size scenario.yaml --catalogue devices.yaml --routes shared --json",
    ),
    "diff": ("planner diff plan.json other.json",),
    "export": (
        "planner export plan.json --annotate annotated.onnx",
        "planner export plan.json --as pipeedge -o schedule.yml",
    ),
    "compare": ("planner compare scenario.yaml --time-limit 10s --simulate",),
    "pareto": ("planner pareto scenario.yaml -o front.svg",),
    "simulate": (
        "planner simulate scenario.yaml --plan plan.json -o runs/simulated",
        "planner simulate scenario.yaml --plan plan.json --policy all --repeat 5",
    ),
    "validate": (
        "planner validate plan.json --local -o runs/first",
        "planner validate plan.json --netns --duration 30s --policy adaptive",
        "planner validate plan.json --connect 192.0.2.7:7447 --cert-dir certs --samples 20",
    ),
    "run": (
        "planner run plan.json --source gate-camera=frames/ -o results",
        "planner run plan.json --source gate-camera=frames/ -o results --resume",
        "planner run plan.json --source 'gate-camera=python camera.py' --json --as-they-come",
    ),
    "generate": (
        "planner generate plan.json --source assistant --text 'Once upon a time' --stream",
        "planner generate plan.json --source assistant --tokens 5,17,99 --max-new 20 --json",
    ),
    "apply": (
        "planner apply scenario.yaml --to http://127.0.0.1:8000 --dry-run",
        "planner apply plan.json --to http://127.0.0.1:8000",
    ),
    "report": (
        "planner report plan.json -o report.html",
        "planner report runs/simulated runs/first -o report.html --trace trace.json",
    ),
    "serve": (
        "planner serve plan.json",
        "planner serve plan.json --connect 192.0.2.7:7447 --cert-dir certs --grpc-listen off --log-format json",
    ),
    "certs": ("planner certs certs nano xavier orin",),
    "agent": (
        "planner agent --name nano --listen 0.0.0.0:7447 --cert-dir certs/nano --install-service user",
        "planner agent --name nano --listen 0.0.0.0:7447 --cert-dir certs/nano",
        "planner agent --name orin --connect 192.0.2.7:7447 --cert-dir certs/orin --provider cuda",
    ),
    "status": (
        "planner status --connect 192.0.2.7:7447 --cert-dir certs",
        "planner status --discover --cert-dir certs",
    ),
    "probe": (
        "planner probe --connect 192.0.2.7:7447 --cert-dir certs -o networks.yaml --picture links.png",
        "planner probe nano orin --connect 192.0.2.7:7447 --cert-dir certs --duration 3s",
    ),
    "schema": ("planner schema scenario -o scenario.schema.json",),
}


def epilog(name: str, subcommand: str = "") -> str:
    r"""Return the examples to show below the options of a command or of one of its sub-commands.

    The leading ``\b`` keeps the lines from being wrapped.
    """
    start = f"planner {name} {subcommand}"
    examples = [example for example in EXAMPLES[name] if f"{example} ".startswith(start)]
    return "\n".join(["\b", "Examples:", *(f"  {example}" for example in examples)])

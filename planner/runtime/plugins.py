"""Plug-in execution providers of onnxruntime: found in installed packages, registered once a process.

A package named ``onnxruntime-ep-NAME`` brings a library, and a module that tells where it is. After its registration,
onnxruntime lists the devices that the plug-in can use. A session gets these devices; the plug-in's name in the
``providers`` of a session would be ignored, and the session would run on the CPU without a word.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any, Final

from planner.errors import RuntimeSessionError

_PACKAGE: Final = re.compile(r"onnxruntime-ep-(?:nv-)?(?P<name>.+?)(?:-cu\d+)?")
"""Names of packages; vendors add their own name, or the version of CUDA."""

DEVICE_OPTION: Final = "device"
"""Option by which the kind of device is chosen, where a plug-in can use several: CPU, GPU or NPU."""


@dataclass(frozen=True)
class Plugin:
    """An installed plug-in.

    Parameters
    ----------
    name
        Name for users.
    package, version
        Where it comes from.
    module
        Module of the package that tells where the library is.
    """

    name: str
    package: str
    version: str
    module: str

    @property
    def provider(self) -> str:
        """Name of its execution provider in onnxruntime."""
        return _registered(self)

    def devices(self, kind: str | None = None) -> list[Any]:
        """Return the devices of onnxruntime that a session is to use: those of one kind, which may be chosen.

        Raises
        ------
        RuntimeSessionError
            The library cannot be loaded, or it offers no such device on this machine.
        """
        from planner.runtime.providers import import_onnxruntime

        name = self.provider
        offered = [device for device in import_onnxruntime().get_ep_devices() if device.ep_name == name]
        kinds = list(dict.fromkeys(device.device.type.name for device in offered))
        if not kinds or kind not in (None, *kinds):
            raise RuntimeSessionError(
                f"{self.package} {self.version} offers no {kind or 'device'} on this machine",
                where="provider",
                value=self.name,
                expected=f"{DEVICE_OPTION}={' or '.join(kinds)}" if kinds else "a device that the plug-in supports",
            )
        chosen = kind or kinds[0]
        return [device for device in offered if device.device.type.name == chosen]


@cache
def installed() -> Mapping[str, Plugin]:
    """Return the plug-ins that are installed, by name, without loading them."""
    found: dict[str, Plugin] = {}
    # The names of folders do: to read what each installed package says of itself takes longer than to load a model.
    folders = (folder for entry in sys.path for folder in Path(entry).glob("onnxruntime[-_]ep[-_]*-info"))
    for distribution in map(Distribution.at, folders):
        package = (distribution.metadata["Name"] or "").lower().replace("_", "-")
        match = _PACKAGE.fullmatch(package)
        module = _module(distribution) if match else None
        if match and module is not None and match["name"] not in found:
            found[match["name"]] = Plugin(match["name"], package, distribution.version, module)
    return dict(sorted(found.items()))


def _module(distribution: Distribution) -> str | None:
    """Return the module that a package installs; None for one that only has others as requirements."""
    packages = {
        file.parts[0] for file in distribution.files or () if len(file.parts) == 2 and file.name == "__init__.py"
    }
    return min(packages, default=None)


@cache
def _registered(plugin: Plugin) -> str:
    """Register the library of a plug-in, once; return the name of its execution provider."""
    from planner.runtime.providers import import_onnxruntime

    library = import_onnxruntime()
    register = getattr(library, "register_execution_provider_library", None)
    if register is None:
        raise RuntimeSessionError(
            "this onnxruntime knows no plug-ins",
            where="provider", value=plugin.name, expected=f"onnxruntime 1.23 or later; this is {library.__version__}",
        )  # fmt: skip
    try:
        module = importlib.import_module(plugin.module)
        names = module.get_ep_names() if hasattr(module, "get_ep_names") else [module.get_ep_name()]
        register(plugin.package, str(module.get_library_path()))
        return str(names[0])
    except Exception as error:
        what = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RuntimeSessionError(
            f"{plugin.package} {plugin.version} cannot be loaded: {what}", where="provider", value=plugin.name
        ) from error

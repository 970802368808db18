"""Which plugins are installed, read from package metadata alone: nothing is imported."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points, version
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable
    from importlib.metadata import PackageMetadata

ENTRY_POINT_GROUP: Final = "bz.plugins"
OPT_IN_KEYWORD: Final = "bz-opt-in"
NETWORK_KEYWORD: Final = "bz-network"
CORE_PACKAGE: Final = "bz-core"
UNKNOWN: Final = "unknown"


class KnownPlugin(NamedTuple):
    """A plugin of the bz project, so that an error can say which package to install."""

    name: str
    class_name: str
    package: str


KNOWN_PLUGINS: Final = (
    KnownPlugin("console_out", "ConsoleOutPlugin", "bz-plugin-console"),
    KnownPlugin("logging", "LoggingPlugin", "bz-plugin-logging"),
    KnownPlugin("email", "EmailNotificationPlugin", "bz-plugin-email"),
    KnownPlugin("checkpoint", "SmartCheckpointPlugin", "bz-plugin-checkpoint"),
    KnownPlugin("visualization", "VisualizationPlugin", "bz-plugin-visualization"),
    KnownPlugin("tensorboard", "TensorBoardPlugin", "bz-plugin-tensorboard"),
    KnownPlugin("early_stopping", "EarlyStoppingPlugin", "bz-plugin-early-stopping"),
    KnownPlugin("averaging", "AveragingPlugin", "bz-plugin-averaging"),
    KnownPlugin("profiler", "ProfilerPlugin", "bz-plugin-profiler"),
)


@dataclass(frozen=True, slots=True)
class DiscoveredPlugin:
    """One entry point of the group `bz.plugins`.

    Attributes:
        name: Name of the entry point.
        package: Distribution that provides it, or `unknown`.
        version: Version of the distribution, or `unknown`.
        target: What the entry point names, `module:attribute`.
        opt_in: Whether it runs only when the settings name it; the distribution says so with the
            keyword `bz-opt-in`, or `bz-network`, in its metadata.
        is_networked: Whether it talks to a network, which nothing but a training may do; the keyword
            is `bz-network`.
        requires_core: Version specifier on bz-core, such as `<0.2,>=0.1`; empty when there is none.
    """

    name: str
    package: str
    version: str
    target: str
    opt_in: bool = False
    is_networked: bool = False
    requires_core: str = ""

    @property
    def attribute(self) -> str:
        """Last part of the target, usually the class name."""
        return self.target.rpartition(":")[2]

    def load(self) -> object:
        """Import the target and return it; raises whatever its import raises."""
        return EntryPoint(self.name, self.target, ENTRY_POINT_GROUP).load()


def discover_plugins() -> tuple[DiscoveredPlugin, ...]:
    """Return every installed plugin, by name and package; two of one name are both there."""
    found = (_describe(entry_point) for entry_point in entry_points(group=ENTRY_POINT_GROUP))
    return tuple(sorted(found, key=lambda plugin: (plugin.name, plugin.package)))


def _describe(entry_point: EntryPoint) -> DiscoveredPlugin:
    distribution = entry_point.dist
    if distribution is None:
        return DiscoveredPlugin(entry_point.name, UNKNOWN, UNKNOWN, entry_point.value)
    metadata = distribution.metadata  # parsed anew at each access
    keywords = set(re.split(r"[,\s]+", " ".join(metadata.get_all("Keywords") or ())))
    return DiscoveredPlugin(
        name=entry_point.name,
        package=_field(metadata, "Name"),
        version=_field(metadata, "Version"),
        target=entry_point.value,
        opt_in=bool(keywords & {OPT_IN_KEYWORD, NETWORK_KEYWORD}),
        is_networked=NETWORK_KEYWORD in keywords,
        requires_core=_core_requirement(metadata.get_all("Requires-Dist") or ()),
    )


def _field(metadata: PackageMetadata, name: str) -> str:
    """Return a field that every package has, unless a removal was cut short and left its entry points alone."""
    return metadata[name] if name in metadata else UNKNOWN  # noqa: SIM401 - it has no `get` in Python 3.11


def _core_requirement(requirements: Iterable[str]) -> str:
    """Return the version specifier on bz-core, as the distribution wrote it."""
    pattern = re.compile(r"bz[-_.]+core\s*(?:\[[^]]*\])?\s*\(?([^;()]*)", re.IGNORECASE)
    matches = (pattern.match(line) for line in requirements)
    return next((match[1].strip() for match in matches if match and not re.match(r"[\w.-]", match[1])), "")


def core_version() -> str:
    """Return the installed version of bz-core."""
    return version(CORE_PACKAGE)


def canonical_name(written: str) -> str:
    """Return the part of a plugin or package name that identifies it.

    `email`, `email_plugin`, `Email-Plugin` and `bz-plugin-email` all give `email`.
    """
    name = re.sub(r"[-_.]+", "_", written).lower()
    return name.removeprefix("bz_plugin_").removesuffix("_plugin")


def is_same_plugin(written: str, plugin: DiscoveredPlugin) -> bool:
    """Return whether `written`, by a user, names this plugin or its package."""
    return canonical_name(written) in {canonical_name(plugin.name), canonical_name(plugin.package)}


def is_same_package(written: str, plugin: DiscoveredPlugin) -> bool:
    """Return whether `written` is the name of the package, in any of its spellings."""
    return re.sub(r"[-_.]+", "-", written).lower() == re.sub(r"[-_.]+", "-", plugin.package).lower()

"""What ``docs/reference`` holds: every description of the API, by the name of its file."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from buildapi.docs import live, metrics, openapi, raml, reference

FILES: Mapping[str, Callable[[], str]] = {
    "buildapi.raml": raml.text,
    "live.md": live.text,
    "metrics.md": metrics.text,
    "openapi.json": openapi.text,
    "resources.md": reference.resources,
    "settings.md": reference.settings,
}

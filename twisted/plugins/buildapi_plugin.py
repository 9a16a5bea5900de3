"""What makes ``twist buildapi`` a command."""

from twisted.application.service import ServiceMaker

buildapi = ServiceMaker(
    "buildapi",
    "buildapi.twist",
    "The data API and message bus of a build master.",
    "buildapi",
)

"""What an endpoint's description says about who may connect."""

from __future__ import annotations

import pytest

from buildapi.www.listening import is_loopback, with_room


@pytest.mark.parametrize(
    "description",
    [
        "tcp:8010:interface=127.0.0.1",
        "tcp:8010:interface=127.1.2.3",
        "tcp:8010:interface=localhost",
        "tcp:port=8010:interface=127.0.0.1",
        "tcp:interface=127.0.0.1:port=8010",
        "tcp6:8010:interface=\\:\\:1",
        "ssl:8010:interface=127.0.0.1:privateKey=key.pem",
        "unix:/run/buildapi",
    ],
)
def test_these_take_connections_from_this_machine_only(description: str) -> None:
    """Where no other machine can come from."""
    assert is_loopback(description)


@pytest.mark.parametrize(
    "description",
    [
        "tcp:8010",
        "tcp:8010:interface=",
        "tcp:8010:interface=0.0.0.0",
        "tcp:8010:interface=192.168.0.1",
        "tcp:8010:interface=ci.example.org",
        "tcp:8010:interface=127.0.0.1:interface=0.0.0.0",
        "tcp6:8010:interface=\\:\\:",
        "haproxy:tcp:8010:interface=127.0.0.1",
        "systemd:domain=INET:index=0",
        "nosuch:interface=127.0.0.1",
        "8010",
        "",
        ":",
        "tcp:8010:interface=127.0.0.1\\",
    ],
)
def test_of_these_nobody_can_say_so(description: str) -> None:
    """Whether they are open, stand behind a proxy, or are no description at all."""
    assert not is_loopback(description)


@pytest.mark.parametrize("description", ["tcp:8010", "tcp6:port=8010", "ssl:8010", "unix:/run/x"])
def test_many_may_knock_at_once(description: str) -> None:
    """All clients come again when a server is back."""
    assert with_room(description) == f"{description}:backlog=1024"


@pytest.mark.parametrize(
    "description",
    ["tcp:8010:backlog=7", "tcp:8010:127.0.0.1:7", "systemd:domain=INET:index=0", "\\"],
)
def test_what_an_operator_says_of_the_queue_counts(description: str) -> None:
    """Nothing is added to it, nor to what has no such queue or can't be read."""
    assert with_room(description) == description

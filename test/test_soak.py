"""``scripts/soak`` finds nothing wrong, and would find it if something was."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = ROOT / "scripts"


@pytest.fixture
def verdict(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the module that compares."""
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("soaking.verdict")


def an_event(number: int, word: str = "new") -> list[Any]:
    """Return an event as it is stored: topic, time and body."""
    return [f"build.{number}.{word}", 1.5, {"buildid": number}]


EVENTS = {1: an_event(1), 2: an_event(1, "finished"), 3: an_event(2)}


def test_a_few_deaths_lose_nothing() -> None:
    """Neither the clients, nor what the master was told."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "soaking",
            "--kills=2",
            "--clients=6",
            "--followers=4",
            "--longest=0.5",
        ],
        cwd=SCRIPTS,
        env={"PYTHONPATH": f"{ROOT}:{SCRIPTS}", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing was missed" in done.stdout


@pytest.mark.parametrize(
    ("topic", "history", "word"),
    [
        ("#", {1: EVENTS[1], 3: EVENTS[3]}, "missed 1 events, the first is 2"),
        ("build.*.new", {1: EVENTS[1]}, "missed 1 events, the first is 3"),
        ("#", {**EVENTS, 4: an_event(3)}, "1 events that are not there, such as 4"),
        ("#", {**EVENTS, 2: an_event(5)}, "otherwise than stored, such as 2"),
        ("#", {1: EVENTS[1], 3: EVENTS[3], 2: EVENTS[2]}, "out of order"),
    ],
)
def test_a_history_that_is_not_the_log_is_found(
    verdict: Any, topic: str, history: dict[int, Any], word: str
) -> None:
    """What is missing, made up, different, or in another order."""
    client = importlib.import_module("soaking.clients").LongPoll(1, topic, seed=1)
    client.history = history

    (complaint,) = verdict._of_client(client, EVENTS)

    assert word in complaint


def test_a_history_that_is_the_log_is_not_complained_of(verdict: Any) -> None:
    """As far as it was asked for."""
    client = importlib.import_module("soaking.clients").LongPoll(1, "build.*.new", seed=1)
    client.history = {1: EVENTS[1], 3: EVENTS[3]}

    assert list(verdict._of_client(client, EVENTS)) == []


def test_a_client_that_is_told_twice_on_one_connection_says_so(verdict: Any) -> None:  # noqa: ARG001  it finds the module
    """A server repeats only what it was asked for."""
    clients = importlib.import_module("soaking.clients")
    client = clients.LongPoll(1, "#", seed=1)
    event = {"seq": 1, "topic": "build.1.new", "at": 1.5, "m": {}}
    client.take(event)

    with pytest.raises(clients.Wrong, match="1 came after 1"):
        client.take(event)


@pytest.mark.parametrize(
    ("text", "ended", "word"),
    [
        (b"0\n1\n", 2, "another text of log 1"),
        (b"0\n2\n", None, "no longer there"),
        (b"0\n1\n2\n", 4, "ended with 4 lines"),
        (b"0\n1\n", None, "never told of its log's end"),
    ],
)
def test_a_followed_text_that_is_not_the_log_is_found(
    verdict: Any, text: bytes, ended: int | None, word: str
) -> None:
    """What is missing at the end, different, counted wrongly, or without an end."""
    follower = importlib.import_module("soaking.followers").RawFollower(1, seed=1)
    follower.take(1, 0, text)
    if ended is not None:
        follower.end(ended)

    complaints = list(verdict._of_follower(follower, {1: b"0\n1\n2\n"}))

    assert any(word in complaint for complaint in complaints)


def test_a_followed_text_that_is_the_log_is_not_complained_of(verdict: Any) -> None:
    """In pieces, and to the end."""
    follower = importlib.import_module("soaking.followers").RawFollower(1, seed=1)
    follower.take(1, 0, b"0\n1\n")
    follower.take(1, 2, b"2\n")
    follower.end(3)
    follower.enough.set()

    assert list(verdict._of_follower(follower, {1: b"0\n1\n2\n"})) == []


def test_a_follower_says_that_lines_do_not_follow(verdict: Any) -> None:  # noqa: ARG001  it finds the module
    """The frames of a log are seamless."""
    follower = importlib.import_module("soaking.followers").RawFollower(1, seed=1)
    follower.take(1, 0, b"0\n1\n")

    with pytest.raises(importlib.import_module("soaking.visitor").Wrong, match="line 1 of log 1"):
        follower.take(1, 1, b"1\n")


def test_what_was_acknowledged_and_is_not_there_is_found(verdict: Any) -> None:
    """A lost row, an old value; more lines than were told of are no loss."""
    lost = list(verdict._lost("builds", "results", {1: 0, 2: 1, 3: 2}, {1: 0, 2: None}))

    assert lost == [
        "builds 2: results was acknowledged as 1, and is None",
        "builds 3: results was acknowledged as 2, and is None",
    ]
    assert list(verdict._lost("logs", "num_lines", {1: 5}, {1: 9})) == []

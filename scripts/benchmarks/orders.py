"""Give orders to the appender inside a master, from outside."""

from __future__ import annotations

import json
import socket
from typing import Any

# The longest that an order may take.
PATIENCE_S = 120


def order(port: int, name: str, **arguments: Any) -> dict[str, Any]:
    """Give one order and return its answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        connection.sendall(json.dumps({"order": name, **arguments}).encode() + b"\n")
        with connection.makefile("rb") as answers:
            answer: dict[str, Any] = json.loads(answers.readline())
    if "error" in answer:
        raise RuntimeError(f"the order {name} failed: {answer['error']}")
    return answer

"""A watch shows what its client may see, at every moment."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from buildapi.data.gate import Gate, Identity, Restriction
from buildapi.service import BuildAPI
from buildapi.testing import (
    WebSocketClient,
    a_build,
    result_of,
)
from test.www.watch.watching import TICK_S, Mirror, builderid_of, refused


@dataclass(frozen=True)
class Hiding(Gate):
    """Hides some builders from everybody but the master itself."""

    hidden: frozenset[int] = frozenset()

    def restriction(self, identity: Identity) -> Restriction | None:
        """Hide them."""
        if identity.trusted or not self.hidden:
            return None
        return Restriction(self.hidden)


def test_rows_that_may_not_be_seen_any_more_leave(api: BuildAPI, ws: WebSocketClient) -> None:
    """And come back with the right: at the next batch, whatever that is about, or at a bookmark."""
    builderid = builderid_of(api, "runtests")
    result_of(a_build(api))
    result_of(a_build(api, builder="docs"))
    watch, one = Mirror(ws, "builds", sub=1), Mirror(ws, "builds/1", sub=2)
    seen = [watch.ids]
    hiding = partial(Hiding, hidden=frozenset({builderid}))
    for gate in (hiding(), Gate(), hiding()):
        api.data.gate = gate
        result_of(api.data.updates.findWorkerId(f"worker {len(seen)}"))
        watch.catch_up()
        one.catch_up()
        seen.append(watch.ids)

    api.data.gate = Gate()
    api.reactor.advance(TICK_S)
    watch.catch_up()
    seen.append(watch.ids)

    assert seen == [[1, 2], [2], [1, 2], [2], [1, 2]]
    assert one.ids == []


def test_the_gate_is_asked_for_the_sockets_identity(api: BuildAPI, ws: WebSocketClient) -> None:
    """What is hidden is not there."""
    builderid = builderid_of(api, "runtests")
    result_of(a_build(api))
    api.data.gate = Hiding(hidden=frozenset({builderid}))

    assert Mirror(ws, "builds").ids == []
    assert refused(ws, path="builds/1")[0] == 404

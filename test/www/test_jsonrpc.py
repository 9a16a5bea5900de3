"""JSON-RPC: from the bytes of a request to a call, and from its outcome to bytes again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildapi import errors
from buildapi.www.jsonrpc import Answer, Call, answer, parse, refusal

STOP = {"jsonrpc": "2.0", "method": "stop", "id": 1, "params": {}}
CALL = Call("stop", 1, {})


def parsed(body: object, content_type: str | None = "application/json") -> Call | Answer:
    """What a body is, given as bytes or as a JSON value."""
    return parse(body if isinstance(body, bytes) else json.dumps(body).encode(), content_type)


def shape(found: Call | Answer) -> tuple[int, Any]:
    """The status and the code of an answer that says no."""
    assert isinstance(found, Answer)
    return found.status, json.loads(found.body)["error"]["code"]


def without(key: str) -> dict[str, Any]:
    """A call that lacks one key."""
    return {name: value for name, value in STOP.items() if name != key}


@pytest.mark.parametrize("number", [1, 0, -7, "x", "", True, False, None, 10**30])
def test_a_call_comes_through_whole(number: object) -> None:
    """Its id is what will be sent back, so it stays what it was."""
    params = {"reason": "☃", "deep": {"list": [1.5, None]}}

    found = parsed({**STOP, "id": number, "params": params})
    assert found == Call("stop", number, params)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/json;charset=utf-8", "application/json; x"]
)
def test_the_content_type_may_have_parameters(content_type: str) -> None:
    """What follows the semicolon is not looked at."""
    assert parsed(STOP, content_type) == CALL


@pytest.mark.parametrize(
    "content_type",
    [None, "", "text/plain", "Application/JSON", "application/json ;", " application/json"],
)
def test_another_content_type_is_no_call(content_type: str | None) -> None:
    """A page of another origin can send text/plain without asking, so nothing else will do."""
    assert shape(parsed(STOP, content_type)) == (400, -32600)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nosuch",
        b"\xff",
        b"\xef\xbb\xbf{}",
        json.dumps(STOP).encode("utf-16"),
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": "\\ud800"}',
        b'{"a": "\\uDC00\\uD800"}',
        b'{"\\udfff": 1}',
        pytest.param(b"[" * 100_000, id="deep list"),
        pytest.param(b'{"a":' * 100_000, id="deep object"),
        pytest.param(b'{"a":' + b"9" * 100_000 + b"}", id="digits"),
    ],
)
def test_what_is_not_json_is_no_call(body: bytes) -> None:
    """Neither is what only some readers take for JSON, or what could never be stored."""
    assert shape(parsed(body)) == (400, -32700)


@pytest.mark.parametrize("text", [r"\ud83d\ude00", r"\\ud800", "\U0001f600"])
def test_whole_characters_are_json(text: str) -> None:
    """A pair of surrogates is one character, and an escaped backslash begins none."""
    body = f'{{"jsonrpc":"2.0","method":"stop","id":1,"params":{{"reason":"{text}"}}}}'

    found = parsed(body.encode())
    assert isinstance(found, Call)
    assert found.params["reason"] in ("\U0001f600", r"\ud800")


@pytest.mark.parametrize(
    "body",
    [
        [],
        [STOP],
        "text",
        5,
        None,
        {},
        *(without(key) for key in STOP),
        {**STOP, "jsonrpc": 2.0},
        {**STOP, "jsonrpc": "1.0"},
        {**STOP, "method": None},
        {**STOP, "id": 1.5},
        {**STOP, "id": 1.0},
        {**STOP, "id": []},
        {**STOP, "id": {}},
        {**STOP, "params": []},
        {**STOP, "params": None},
    ],
)
def test_json_of_another_form_is_no_call(body: object) -> None:
    """Batches and notifications are not offered."""
    assert shape(parsed(body)) == (400, -32600)


def test_the_first_answers_have_no_id() -> None:
    """Even where one could be read: the caller learns that the call as such is wrong."""
    found = parsed({**STOP, "jsonrpc": "1.0"})

    assert isinstance(found, Answer)
    assert json.loads(found.body).keys() == {"jsonrpc", "error"}


def test_the_content_type_is_looked_at_before_the_body() -> None:
    """Of two faults, the one that stands first in the specification is told."""
    assert shape(parsed(b"{", "text/plain")) == (400, -32600)


def test_the_last_of_two_equal_keys_counts() -> None:
    """As in the reference server, and in every browser."""
    body = b'{"jsonrpc":"2.0","method":"a","method":"b","id":1,"params":{}}'

    assert parsed(body) == Call("b", 1, {})


def test_many_parameters_are_a_call_like_any_other() -> None:
    """How long a body may be is for the server to say."""
    params = {f"field{n}": "x" for n in range(100_000)}

    assert parsed({**STOP, "params": params}) == Call("stop", 1, params)


@given(st.binary())
def test_no_bytes_make_it_fail(body: bytes) -> None:
    """Whatever is posted has an answer."""
    assert isinstance(parsed(body), Answer)


@pytest.mark.parametrize(
    ("result", "shown"), [(None, None), ((7, {3: 12}), [7, {"3": 12}]), ("☃", "☃")]
)
def test_a_result_is_shown_as_json(result: object, shown: object) -> None:
    """Ids that are keys become texts, as JSON has no other keys."""
    found = answer(CALL, result)

    assert found.status == 200
    assert json.loads(found.body) == {"jsonrpc": "2.0", "id": 1, "result": shown}


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.NoSuchPath("x"), 404, -32600),
        (errors.NoSuchResource("x"), 404, -32600),
        (errors.Forbidden("x"), 403, -32600),
        (errors.NoSuchAction("x"), 501, -32601),
        (errors.Conflict("x"), 409, -32600),
        (errors.KeyReused("x"), 422, -32600),
        (errors.BadRequest("x"), 400, -32602),
        (errors.BadArgument("x"), 400, -32602),
        (errors.QueueFull("x"), 503, -32000),
        (errors.Stopping("x"), 503, -32000),
        (errors.CannotOpen("x"), 503, -32000),
    ],
)
def test_an_error_has_its_status_and_code(
    error: errors.BuildAPIError, status: int, code: int
) -> None:
    """The codes are those of the specification; the sentence is the error's own."""
    found = refusal(error, CALL)

    assert shape(found) == (status, code)
    assert json.loads(found.body)["error"]["message"] == "x"
    assert json.loads(found.body)["id"] == 1


def test_the_wrong_fields_of_a_form_are_an_object() -> None:
    """So that a page can show each sentence beside its field."""
    found = refusal(errors.FieldErrors({"s1": "must be filled in"}), CALL)

    assert shape(found) == (400, -32602)
    assert json.loads(found.body)["error"]["message"] == {"s1": "must be filled in"}


@pytest.mark.parametrize("error", [KeyError("a secret"), errors.BadSettings("a secret")])
def test_our_own_faults_tell_nothing(error: Exception) -> None:
    """They are for the log: their text may hold what the caller must not see."""
    found = refusal(error, CALL)

    assert shape(found) == (500, -32603)
    assert b"secret" not in found.body


def test_an_id_of_any_size_comes_back() -> None:
    """A caller finds its call by it."""
    call = parsed({**STOP, "id": 10**30})

    assert isinstance(call, Call)
    assert json.loads(answer(call, None).body)["id"] == 10**30


def test_a_refusal_before_the_call_was_read_has_no_id() -> None:
    """There is nothing to send back."""
    assert "id" not in json.loads(refusal(errors.Forbidden("x"), None).body)

"""What may be asked of a collection, and the sentence that refuses the rest."""

from __future__ import annotations

import operator
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildapi.data.api import RESOURCES
from buildapi.data.builders import Builder
from buildapi.data.buildrequests import BuildRequest
from buildapi.data.builds import Build
from buildapi.data.logs import Log
from buildapi.data.properties import Properties
from buildapi.data.query import (
    MOST_CONTAINED,
    MOST_VALUES,
    Filter,
    Query,
    arguments,
    parse,
    parse_text,
    spelled,
)
from buildapi.data.schema import Resource
from buildapi.data.steps import Step
from buildapi.data.values import LARGEST, OPERATORS, SMALLEST
from buildapi.errors import BadQuery

HUGE = 10**30


def asked(text: str, resource: type[Resource] = Build, *, single: bool = False) -> Query:
    """Parse a query string for a collection of builds."""
    return parse_text(resource, text, single=single)


def refused(text: str, resource: type[Resource] = Build, *, single: bool = False) -> str:
    """Return the sentence with which a query string is refused."""
    with pytest.raises(BadQuery) as caught:
        asked(text, resource, single=single)
    return str(caught.value)


def only(text: str, resource: type[Resource] = Build) -> Filter:
    """Return the one filter of a query string."""
    (found,) = asked(text, resource).filters
    return found


# 1. field and order


@pytest.mark.parametrize("argument", ["field", "order"])
@pytest.mark.parametrize("name", ["nosuch", "", "buildid,number", "Number", "buildid ", "%FF"])
def test_field_and_order_must_name_fields(argument: str, name: str) -> None:
    """The sentence names the argument and the field, and lists those that there are."""
    sentence = refused(f"{argument}={name}")

    assert sentence.startswith(f"{argument}: no such field '")
    assert "buildid, number, builderid" in sentence


@pytest.mark.parametrize("order", ["--number", "-", "-nosuch", "+number"])
def test_only_one_minus_reverses_an_order(order: str) -> None:
    """What is left after one minus must be a field."""
    assert "order: no such field" in refused(f"order={order}")


@pytest.mark.parametrize("name", ["properties", "-properties"])
def test_nothing_is_ordered_by_an_object(name: str) -> None:
    """Lists and objects have no order."""
    assert "order: properties is a list or an object" in refused(f"order={name}")


def test_fields_and_orders_come_several_times() -> None:
    """Orders count from left to right; a field that was ordered by already changes nothing."""
    query = asked(
        "field=number&field=buildid&field=number&order=-number&order=buildid&order=number"
    )

    assert query.fields == ("buildid", "number")
    assert query.order == (("number", False), ("buildid", True))


# 2. limit and offset


@pytest.mark.parametrize("argument", ["limit", "offset"])
@pytest.mark.parametrize(
    "value", ["", "x", "1.0", "0x10", "1e3", "%FF", "%D9%A1", "--1", "1 0", "null"]
)
def test_a_window_is_of_decimal_integers(argument: str, value: str) -> None:
    """The sentence says which argument is wrong, and what is wanted."""
    assert refused(f"{argument}={value}") == f"invalid {argument}: a whole number from 0 is wanted"


@pytest.mark.parametrize("argument", ["limit", "offset"])
def test_a_window_is_not_negative(argument: str) -> None:
    """The reference counts from the end then; here it is an error."""
    assert refused(f"{argument}=-1") == f"invalid {argument}: it must not be negative"


@pytest.mark.parametrize("value", ["10", "+10", "%2010%20", "1_0", "010", "10&limit=x"])
def test_the_first_limit_counts(value: str) -> None:
    """Surrounding blanks, a plus and underscores are accepted."""
    assert asked(f"limit={value}".replace("+", "%2B")).limit == 10


def test_no_window_is_too_large_for_the_database() -> None:
    """Its integers have 64 bits."""
    query = asked(f"limit={HUGE}&offset={HUGE}")

    assert (query.limit, query.offset) == (LARGEST, LARGEST)


def test_a_limit_of_zero_is_a_limit() -> None:
    """It asks for an empty page."""
    assert asked("limit=0").limit == 0


# 3. and 4. filters


@pytest.mark.parametrize("op", OPERATORS)
def test_a_filter_is_a_field_with_an_operator(op: str) -> None:
    """Without an operator it is eq."""
    assert only(f"state_string__{op}=x") == Filter("state_string", op, ("x",))  # type: ignore[arg-type]
    assert only("state_string=x") == Filter("state_string", "eq", ("x",))


@pytest.mark.parametrize("argument", ["buildid", "buildid__ne", "started_at__lt", "results__in"])
@pytest.mark.parametrize("value", ["", "x", "1.5", "1e3", "0x1", "true", "null", "%FF"])
def test_numbers_and_dates_are_decimal_integers(argument: str, value: str) -> None:
    """The sentence names the argument and the type of the field."""
    sentence = refused(f"{argument}={value}")

    assert re.match(rf"invalid filter value for {argument}: a whole number .*is wanted$", sentence)


@pytest.mark.parametrize("value", ["on", "TRUE", "Yes", "1", "off", "False", "NO", "0"])
def test_booleans_have_eight_words(value: str) -> None:
    """In any case."""
    assert only(f"complete={value}").values == (value.lower() in ("on", "true", "yes", "1"),)


@pytest.mark.parametrize("value", ["", "2", "t", "none", " true", "%FF"])
def test_other_words_are_no_booleans(value: str) -> None:
    """Not even with blanks around them."""
    assert refused(f"complete={value}") == (
        "invalid filter value for complete: on, true, yes, 1 or off, false, no, 0 is wanted"
    )


@pytest.mark.parametrize("argument", ["buildid", "started_at", "complete"])
def test_numbers_dates_and_booleans_contain_nothing(argument: str) -> None:
    """The reference looks for digits in numbers."""
    assert f"{argument}__contains: contains means nothing on {argument}" in refused(
        f"{argument}__contains=1"
    )


@pytest.mark.parametrize("op", [op for op in OPERATORS if op != "contains"])
def test_lists_can_only_be_asked_what_they_contain(op: str) -> None:
    """A list equals no text of a URL."""
    assert f"tags__{op}: {op} means nothing on tags, which is of type list" in refused(
        f"tags__{op}=x", Builder
    )


@pytest.mark.parametrize("op", OPERATORS)
@pytest.mark.parametrize(("resource", "name"), [(Build, "properties"), (Step, "urls")])
def test_objects_can_be_asked_nothing(op: str, resource: type[Resource], name: str) -> None:
    """Nor can lists of objects."""
    assert f"{op} means nothing on {name}" in refused(f"{name}__{op}=x", resource)


def test_an_element_of_a_list_has_the_type_of_its_elements() -> None:
    """A builder's masterids are numbers."""
    assert only("masterids__contains=1", Builder).values == (1,)
    assert refused("masterids__contains=x", Builder) == (
        "invalid filter value for masterids__contains: a whole number is wanted"
    )


@pytest.mark.parametrize("op", ["lt", "le", "gt", "ge"])
def test_a_comparison_is_given_once(op: str) -> None:
    """Two limits of one kind contradict each other."""
    sentence = refused(f"number__{op}=1&number__{op}=2")

    assert sentence.startswith(f"unknown argument number__{op}: ")
    assert sentence.endswith("lt, le, gt and ge can be given once")


@pytest.mark.parametrize("op", ["eq", "ne", "contains", "in", "notin"])
def test_repeated_arguments_are_one_filter(op: str) -> None:
    """Equal values count once."""
    assert only(f"state_string__{op}=b&state_string__{op}=a&state_string__{op}=b").values == (
        "b",
        "a",
    )


def test_strings_are_taken_as_they_are() -> None:
    """Blanks, plus signs, ampersands and the empty text included; identifiers likewise."""
    assert only("state_string=").values == ("",)
    assert only("state_string=a+b%2Bc%26d=e").values == ("a b+c&d=e",)
    assert only("name=two%20words", Step).values == ("two words",)


def test_values_beyond_64_bits_compare_as_numbers() -> None:
    """Nothing equals them; what is stored lies below them, or above."""
    assert only(f"buildid={HUGE}").values == ()
    assert only(f"buildid__notin={HUGE}&buildid__notin=1").values == (1,)
    assert only(f"buildid__lt={HUGE}") == Filter("buildid", "le", (LARGEST,))
    assert only(f"buildid__ge={HUGE}") == Filter("buildid", "gt", (LARGEST,))
    assert only(f"buildid__gt=-{HUGE}") == Filter("buildid", "ge", (SMALLEST,))
    assert only(f"buildid__le=-{HUGE}") == Filter("buildid", "lt", (SMALLEST,))


@given(st.text(), st.text(), st.sampled_from(["lt", "le", "gt", "ge"]))
def test_bytes_that_are_no_utf_8_compare_by_code_point(before: str, after: str, op: str) -> None:
    """A stray byte reads as a surrogate, which no stored text has and no database takes."""
    wanted = f"{before}\udcff{after}"
    (found,) = parse(Build, {f"state_string__{op}": [wanted]}, single=False).filters
    bound = found.values[0]

    bound.encode()
    for end in ("", "a", "\ud7ff", "\ue000", "\U0001f600"):
        stored = f"{before}{end}"
        assert getattr(operator, found.op)(stored, bound) == getattr(operator, op)(stored, wanted)


def test_bytes_that_are_no_utf_8_equal_nothing() -> None:
    """Neither in a value nor in the name of a property."""
    assert only("state_string=%FF").values == ()
    assert only("state_string__contains=%ED%A0%80").values == ()
    assert asked("property=%FF&property=a").properties == (None, "a")


# 5. and 6. everything else


@pytest.mark.parametrize(
    "argument",
    [
        *("include", "cursor", "until", "wait", "follow", "since"),
        *("lines", "grep", "context", "streams", "pretty", "compact", "format"),
        *("nosuch", "nosuch__eq", "number__nosuch", "number__", "__eq", "number__eq__ne"),
        *("number__EQ", "property__eq", "field__eq", "limit__lt", "Number", ""),
    ],
)
def test_an_unknown_argument_is_named(argument: str) -> None:
    """A misspelt filter that is ignored would return everything."""
    sentence = refused(f"{argument}=1")

    assert sentence.startswith(f"unknown argument {argument}: there are field, order, limit, ")


def test_all_unknown_arguments_are_named() -> None:
    """So that they are mended at once."""
    assert refused("nosuch=1&number=1&number__op=2&%FF=3").startswith(
        "unknown argument nosuch, number__op, \\udcff: "
    )


@pytest.mark.parametrize(
    "first", ["order=properties", "limit=-1", "field=nosuch", "number=x", "properties__le=1"]
)
def test_an_unknown_argument_is_named_whatever_else_is_wrong(first: str) -> None:
    """Which argument is looked at first is no reason to be silent about the others."""
    assert refused(f"{first}&number__op=2&limit__eq=1").endswith(
        "; unknown argument number__op, limit__eq"
    )


def test_arguments_without_an_equals_sign_are_dropped() -> None:
    """As the reference does."""
    assert asked("nosuch&&limit=1&limit") == Query(limit=1)


def test_a_sentence_never_repeats_more_than_200_characters() -> None:
    """It goes into logs."""
    assert len(refused(f"{'x' * 10_000}=1")) < 500


# 7. un-selected fields, 8. single objects


def test_an_order_must_be_selected() -> None:
    """If fields are selected at all."""
    assert refused("field=buildid&order=number") == (
        "order: cannot order on un-selected fields; add field=number"
    )


def test_a_filter_must_be_selected() -> None:
    """If fields are selected at all."""
    assert refused("field=buildid&number__gt=1") == (
        "number: cannot filter on un-selected fields; add field=number"
    )
    assert asked("field=number&number__gt=1&order=number").fields == ("number",)


@pytest.mark.parametrize("text", ["buildid=1", "complete__ne=true", "field=number&number=1"])
def test_one_object_takes_no_filter(text: str) -> None:
    """It is no collection."""
    assert "this is not a collection" in refused(text, single=True)


def test_the_window_of_one_object_is_checked_and_order_ignored() -> None:
    """Log contents have a window, though they are one object."""
    query = asked("order=-number&limit=5&offset=2&field=number", single=True)

    assert query == Query(("number",), limit=5, offset=2)
    assert asked("order=properties", single=True) == Query()
    assert "no such field" in refused("order=nosuch", single=True)
    assert "invalid limit" in refused("limit=-1", single=True)


@pytest.mark.parametrize("single", [True, False])
def test_a_star_is_all_properties(single: bool) -> None:
    """Whatever else is asked for."""
    assert asked("property=a&property=*&property=b", single=single).properties == ("*",)
    assert asked("property=b&property=a&property=b", single=single).properties == ("b", "a")


def test_objects_of_free_keys_take_any_field() -> None:
    """The properties of a build have whatever names they have."""
    assert asked("field=owner", Properties, single=True).fields == ("owner",)
    assert "field: no such field ''" in refused("field=", Properties, single=True)


WRONG = [
    ("field=nosuch", "field: no such field"),
    ("order=nosuch", "order: no such field"),
    ("limit=x", "invalid limit"),
    ("offset=x", "invalid offset"),
    ("started_at=x", "invalid filter value for started_at"),
    ("nosuch=1", "unknown argument nosuch"),
    ("field=buildid&number=1", "cannot filter on un-selected fields"),
]


@pytest.mark.parametrize("first", range(len(WRONG)))
@pytest.mark.parametrize("second", range(len(WRONG)))
def test_faults_are_reported_in_the_order_of_the_contract(first: int, second: int) -> None:
    """Wherever they stand in the query."""
    if first == second:
        return
    expected = WRONG[min(first, second)][1]

    assert expected in refused(f"{WRONG[first][0]}&{WRONG[second][0]}")


# From Python


def test_a_query_in_python_means_the_url() -> None:
    """Every argument has its place."""
    said = spelled(
        {"complete": False, "number__gt": 3, "state_string": ["a", "b"]},
        ["buildid", "number"],
        "-number",
        5,
        10,
        ["owner"],
    )

    assert said == arguments(
        "complete=false&number__gt=3&state_string=a&state_string=b&field=buildid&field=number"
        "&order=-number&limit=5&offset=10&property=owner"
    )


def test_one_name_is_no_list_of_letters() -> None:
    """A text is one field, one order, one property."""
    assert spelled(None, "number", "number", None, None, "*") == {
        "field": ["number"],
        "order": ["number"],
        "property": ["*"],
    }


def test_an_empty_list_of_values_is_no_missing_filter() -> None:
    """Equal to one of none: nothing is."""
    query = parse(Build, spelled({"buildid": [], "number__notin": ()}), single=False)

    assert query.filters == (Filter("buildid", "eq", ()), Filter("number", "notin", ()))
    with pytest.raises(BadQuery, match="number__lt"):
        parse(Build, spelled({"number__lt": []}), single=False)


@pytest.mark.parametrize("value", [None, 1.5, b"x", datetime(2026, 11, 21, tzinfo=UTC), [None]])
def test_a_value_that_no_url_can_spell_is_refused(value: Any) -> None:
    """None above all: there is no way to ask for null."""
    with pytest.raises(BadQuery, match=r"^complete_at: "):
        parse(Build, spelled({"complete_at": value}), single=False)


@pytest.mark.parametrize("limit", [True, "x", -1, 2.5])
def test_a_window_in_python_is_checked_too(limit: Any) -> None:
    """A truth is no number."""
    with pytest.raises(BadQuery, match="limit"):
        parse(Build, spelled(limit=limit), single=False)


def test_a_filter_takes_no_more_values_than_a_database() -> None:
    """The sentence says how many."""
    with pytest.raises(BadQuery, match=f"buildid: it can be given {MOST_VALUES} times"):
        parse(Build, spelled({"buildid": range(MOST_VALUES + 1)}), single=False)
    many = [str(n) for n in range(MOST_CONTAINED + 1)]
    with pytest.raises(BadQuery, match=f"{MOST_CONTAINED} times"):
        parse(Build, spelled({"state_string__contains": many}), single=False)


# Anything at all

_names = st.sampled_from(sorted({name for resource in RESOURCES for name in resource.fields}))
_ops = st.sampled_from(["", *(f"__{op}" for op in OPERATORS), "__x", "__"])
_known = st.sampled_from(["field", "order", "limit", "offset", "property"])
_arguments = st.one_of(_known, st.builds("".join, st.tuples(_names, _ops)), st.text())
_values = st.one_of(_names, st.integers().map(str), st.booleans().map(str), st.text())


@given(
    st.sampled_from(RESOURCES),
    st.dictionaries(_arguments, st.lists(_values, min_size=1, max_size=3), max_size=4),
    st.booleans(),
)
def test_a_query_is_parsed_or_refused(
    resource: type[Resource], args: dict[str, list[str]], single: bool
) -> None:
    """Nothing else is ever raised, and what is parsed can be remembered."""
    try:
        query = parse(resource, args, single=single)
    except BadQuery:
        return

    assert hash(query) == hash(parse(resource, args, single=single))
    assert not (single and query.filters)


@given(st.binary())
def test_any_bytes_are_split_into_arguments(query: bytes) -> None:
    """A query string need not be UTF-8."""
    text = query.decode("utf-8", "surrogateescape")

    for resource in (Build, BuildRequest, Log):
        try:
            asked(text, resource)
        except BadQuery as error:
            str(error).encode()

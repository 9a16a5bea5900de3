"""The form of a force scheduler: what it shows, and what may be posted in it."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from buildapi.data.forcefields import (
    Codebase,
    ForceRequest,
    ForceScheduler,
    as_row,
    force_schedulers,
    validate,
)
from buildapi.data.formfields import (
    Bool,
    Choice,
    Fixed,
    Int,
    Leaf,
    Nested,
    Text,
    TextArea,
    UserName,
)
from buildapi.errors import BadSettings, FieldErrors

HERE = Path(__file__).parent
SAMPLE = tomllib.loads((HERE.parent / "contract" / "sample.toml").read_text(encoding="utf-8"))
FORCE, FORCE_CB = TypeAdapter(tuple[ForceScheduler, ...]).validate_python(SAMPLE["forcescheduler"])


def a_scheduler(*fields: Leaf | Nested, **settings: Any) -> ForceScheduler:
    """A scheduler for one builder."""
    settings = {"name": "force", "builder_names": ("runtests",), **settings}
    return ForceScheduler(fields=fields, **settings)


def posted(field: Leaf, value: object) -> Any:
    """What a field makes of a posted value."""
    return validate(a_scheduler(field), {field.name: value}).properties[field.name]


def asked(scheduler: ForceScheduler, params: dict[str, Any]) -> ForceRequest | FieldErrors:
    """What a form asks for, or why it cannot."""
    try:
        return validate(scheduler, params)
    except FieldErrors as error:
        return error


def wrong(scheduler: ForceScheduler, **params: object) -> dict[str, str]:
    """The sentences on the wrong fields; there is one at least."""
    outcome = asked(scheduler, params)
    assert isinstance(outcome, FieldErrors)
    return outcome.fields


def refused(field: Leaf, value: object) -> str:
    """The sentence on a value that a field refuses."""
    return wrong(a_scheduler(field), **{field.name: value})[field.name]


# What it shows


@pytest.mark.parametrize("number", [0, 1])
def test_the_sample_settings_make_the_recorded_objects(number: int) -> None:
    """Every key of both, down to the last nested field, is as the reference server has it."""
    recorded = json.loads((HERE / "forceschedulers.json").read_text(encoding="utf-8"))

    assert as_row((FORCE, FORCE_CB)[number]) == recorded[number]


def test_the_object_is_json() -> None:
    """Lists are lists, so that comparing and rendering it needs no further step."""
    row = as_row(FORCE)

    assert json.loads(json.dumps(row)) == row


def test_a_regex_is_not_shown() -> None:
    """Buildbot's objects have null there, configured or not."""
    row = as_row(a_scheduler(Text(name="target", regex="^[a-z]+$")))

    assert row["all_fields"][-1]["regex"] is None


def test_whether_it_is_enabled_is_for_the_database_to_say() -> None:
    """A disabled scheduler keeps its form."""
    assert as_row(FORCE, enabled=False) == {**as_row(FORCE), "enabled": False}


def test_full_names_say_every_named_group_above() -> None:
    """A group without a name leaves no trace in them."""
    inner = Nested(name="inner", fields=(Text(name="leaf"),))
    scheduler = a_scheduler(Nested(name="outer", fields=(Nested(fields=(inner,)),)))

    nameless = as_row(scheduler)["all_fields"][-1]["fields"][0]
    assert nameless["fullName"] == "outer"
    assert nameless["fields"][0]["fields"][0]["fullName"] == "outer_inner_leaf"


# How it is declared


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ({"nmae": "x"}, "forcescheduler.0.nmae: there is no such option"),
        ({"name": "a b"}, "forcescheduler.0: 'a b' is no identifier, as in build-all_2.0"),
        ({"fields": [{"type": "text"}]}, "forcescheduler.0: a field of type text has no name"),
        (
            {"fields": [{"type": "int", "name": "reason"}]},
            "forcescheduler.0: two fields are called reason",
        ),
        (
            {"fields": [{"type": "int", "name": "builderid"}]},
            "forcescheduler.0: two fields are called builderid",
        ),
        (
            {"codebases": [{"codebase": "lib"}, {"codebase": "lib"}]},
            "forcescheduler.0: two fields are called lib_branch",
        ),
        (
            {"reason": {"type": "list", "choices": ["a"], "multiple": True}},
            "forcescheduler.0: reason is one text, not a list or a number",
        ),
        (
            {"codebases": [{"branch": {"type": "fixed", "default": 1}}]},
            "forcescheduler.0.codebases.0: branch is one text, not a list or a number",
        ),
    ],
)
def test_a_wrong_declaration_says_where_it_stands(fault: dict[str, Any], sentence: str) -> None:
    """The operator reads one sentence with the place in the file."""
    with pytest.raises(BadSettings) as caught:
        force_schedulers([{"name": "force", "builder_names": ["runtests"], **fault}])

    assert caught.value.sentence == sentence


@pytest.mark.parametrize("fault", [{"regex": "("}, {"type": "color"}, {"default": 3}])
def test_a_wrong_field_is_refused(fault: dict[str, Any]) -> None:
    """A form that could never work is found when the server starts, not when it is posted."""
    field = {"type": "text", "name": "x", **fault}

    with pytest.raises(BadSettings, match=r"forcescheduler\.0\.fields\.0"):
        force_schedulers([{"name": "force", "builder_names": [], "fields": [field]}])


def test_a_missing_setting_is_named() -> None:
    """In words of the file, not of the code."""
    with pytest.raises(BadSettings) as caught:
        force_schedulers([{"name": "force"}])

    assert caught.value.sentence == "forcescheduler.0.builder_names: it must be given"


def test_two_schedulers_of_one_name_are_refused() -> None:
    """A scheduler's name is its address."""
    table = {"name": "force", "builder_names": ["runtests"]}

    with pytest.raises(BadSettings, match="two are called force"):
        force_schedulers([table, table])


# What it asks for


def test_an_empty_form_asks_for_the_defaults() -> None:
    """These are the properties that the reference server stored for such a form."""
    request = validate(FORCE, {"s1": "abc", "reason": "left running"})

    assert request.properties == {
        "s1": "abc",
        "i1": 3,
        "b1": True,
        "c1": "x",
        "t1": "",
        "m1": ["k"],
        "nest": {"fx": "fixed", "username": ""},
        "reason": "left running",
        "owner": "",
    }
    assert request.buildset_reason == "A build was forced by '': left running"
    assert request.priority == 0
    assert request.builderid is None
    assert request.builder_names == FORCE.builder_names
    assert request.sourcestamps == [
        {"codebase": "", "branch": "", "project": "", "repository": "", "revision": ""}
    ]


def test_every_codebase_makes_a_source_stamp() -> None:
    """Its fields are posted under its name."""
    app, lib = validate(FORCE_CB, {"app_branch": "dev", "lib_revision": "abc"}).sourcestamps

    blank = {"branch": "", "project": "", "repository": "", "revision": ""}
    assert app == {**blank, "codebase": "app", "branch": "dev"}
    assert lib == {**blank, "codebase": "lib", "revision": "abc"}


def test_a_scheduler_may_have_no_codebase() -> None:
    """Then a build has no source stamp."""
    assert validate(a_scheduler(codebases=()), {}).sourcestamps == []


@pytest.mark.parametrize("builder", [7, "7", ["7"], [7]])
def test_one_builder_can_be_chosen(builder: object) -> None:
    """Browsers post its id as text, scripts as a number, and some as a list of one."""
    assert validate(FORCE_CB, {"builderid": builder}).builderid == 7


@pytest.mark.parametrize("builder", ["b", ["b"]])
def test_a_builder_can_be_called_by_its_name(builder: object) -> None:
    """As in a path."""
    request = validate(a_scheduler(builder_names=("a", "b")), {"builderid": builder})

    assert request.builder_names == ("b",)
    assert request.builderid is None


@pytest.mark.parametrize("builder", ["nosuch", "7.0", True])
def test_a_builder_that_the_form_does_not_have_is_refused(builder: object) -> None:
    """By its name; whose id it is, the database says."""
    assert list(wrong(FORCE_CB, builderid=builder)) == ["builderid"]


@pytest.mark.parametrize("builder", ["", " ", []])
def test_an_empty_builder_is_not_all_of_them(builder: object) -> None:
    """A script whose variable is empty would start every build that there is."""
    assert list(wrong(FORCE_CB, builderid=builder)) == ["builderid"]


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (None, ("a", "b", "c")),
        (["b"], ("b",)),
        (["c", "a", "a", "nosuch", 7, None], ("a", "c")),
    ],
)
def test_several_builders_can_be_chosen(names: object, wanted: tuple[str, ...]) -> None:
    """By name, in one build set; what is no builder of the form does not count."""
    form = a_scheduler(builder_names=("a", "b", "c"))

    assert validate(form, {"builderNames": names}).builder_names == wanted


def test_several_builders_win_over_one() -> None:
    """Buildbot looks at the id only if there are no names."""
    request = validate(FORCE_CB, {"builderNames": ["variety"], "builderid": 1})

    assert request.builder_names == ("variety",)
    assert request.builderid is None


@pytest.mark.parametrize("names", [[], ["nosuch"], "variety", 7, {"variety": 1}, [["variety"]]])
def test_names_of_no_builder_are_refused(names: object) -> None:
    """Whoever asks for some of the builders must never get all of them."""
    assert list(wrong(FORCE_CB, builderNames=names)) == ["builderNames"]


def test_who_is_logged_in_is_the_owner() -> None:
    """Nobody signs for somebody else: neither by a name in the form, nor by an ``owner`` posted."""
    request = validate(FORCE_CB, {"username": "eve", "owner": "eve"}, owner="jo@example.org")

    assert request.owner == request.properties["owner"] == "jo@example.org"


def test_the_name_in_the_form_is_the_owner_of_what_nobody_is_logged_in_for() -> None:
    """It has to be told somehow whom the result concerns."""
    assert validate(FORCE_CB, {"username": "Jo <jo@example.org>"}).owner == "Jo <jo@example.org>"


def test_unknown_parameters_do_not_count() -> None:
    """As in Buildbot: its own pages send along what is not in the form."""
    assert validate(FORCE_CB, {"nosuch": 1}) == validate(FORCE_CB, {})


def test_the_fields_of_a_nameless_group_are_properties_of_their_own() -> None:
    """Such a group is a matter of looks."""
    scheduler = a_scheduler(
        Nested(fields=(Text(name="a"), Nested(name="b", fields=(Int(name="c"),))))
    )

    properties = validate(scheduler, {"a": "x", "b_c": 1}).properties
    assert properties["a"] == "x"
    assert properties["b"] == {"c": 1}


# What each kind of field takes


@pytest.mark.parametrize(
    ("field", "value", "meaning"),
    [
        (Text(name="x"), " kept as it is ", " kept as it is "),
        (Text(name="x"), 1234, "1234"),
        (Text(name="x"), ["one"], "one"),
        (TextArea(name="x"), "two\nlines", "two\nlines"),
        (Int(name="x"), "3", 3),
        (Int(name="x"), " +1_0 ", 10),
        (Int(name="x"), [-4], -4),
        (Bool(name="x"), True, True),
        (Bool(name="x"), "1", True),
        (Bool(name="x"), 0, False),
        (Bool(name="x", default=True), "False", False),
        (Choice(name="x", choices=("k", "l")), "l", "l"),
        (Choice(name="x", choices=("k",), strict=False), "other", "other"),
        (Choice(name="x", choices=("k", "l"), multiple=True), "l", ["l"]),
        (Choice(name="x", choices=("k", "l"), multiple=True), ["k", "l"], ["k", "l"]),
        (UserName(name="x"), "jo@example.org", "jo@example.org"),
        (UserName(name="x", need_email=False), "jo", "jo"),
        (Fixed(name="x", default="fixed"), "other", "fixed"),
        (Fixed(name="x", default=("a", "b")), None, ["a", "b"]),
    ],
)
def test_a_value_means(field: Leaf, value: object, meaning: object) -> None:
    """A scalar counts as its text, and a list of one as its element."""
    found = posted(field, value)

    assert (type(found), found) == (type(meaning), meaning)


@pytest.mark.parametrize("value", [None, "", "  ", [], [None], ["", " "]])
@pytest.mark.parametrize(
    ("field", "default"),
    [
        (Text(name="x", default="dflt", regex="^never$"), "dflt"),
        (Int(name="x", default=3), 3),
        (Bool(name="x", default=True), True),
        (Choice(name="x", choices=("k", "l"), default="l"), "l"),
        (Choice(name="x", choices=("k",), default="k", multiple=True), ["k"]),
        (Choice(name="x", choices=("k",), default=("k",), multiple=True), ["k"]),
        (Choice(name="x", choices=("k",), multiple=True), []),
        (UserName(name="x"), ""),
    ],
)
def test_a_blank_is_the_default(field: Leaf, default: object, value: object) -> None:
    """Browsers post empty boxes too."""
    assert posted(field, value) == default


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        (Text(name="x", required=True, default="y"), " ", "'x' must be filled in."),
        (Text(name="x", label="The x", required=True), None, "'The x' must be filled in."),
        (Text(name="x", regex="^[a-z]+$"), "ABC", "'ABC' does not match ^[a-z]+$."),
        (Text(name="x", maxsize=3), "four", "'x' may have 3 characters, not 4."),
        (Text(name="x"), ["a", "b"], "'x' takes one value, not 2."),
        (Text(name="x"), {}, "This must be text, a number, true or false."),
        (Text(name="x"), [[]], "This must be text, a number, true or false."),
        (Text(name="x"), "\ud800", "This has characters or digits that nothing could store."),
        pytest.param(
            Text(name="x"),
            10**5000,
            "This has characters or digits that nothing could store.",
            id="digits",
        ),
        (Text(name="x"), "\0", "This has a zero character, which not every database can store."),
        (Int(name="x"), "three", "'three' is not an integer."),
        (Int(name="x"), 1.5, "'1.5' is not an integer."),
        (Int(name="x"), True, "'true' is not an integer."),
        (Int(name="x"), "9" * 5000, f"'{'9' * 60}…' is not an integer."),
        (Int(name="x"), 2**63, "'9223372036854775808' is beyond 64 bits."),
        (Bool(name="x"), "maybe", "'maybe' is neither true nor false."),
        (Choice(name="x", choices=("k", "l")), "m", "'m' is none of: k, l."),
        (Choice(name="x", choices=("k", "l")), None, "'' is none of: k, l."),
        (Choice(name="x", choices=("k", "l"), multiple=True), ["k", "m"], "'m' is none of: k, l."),
        (UserName(name="x"), "jo", "'jo' has no e-mail address, as in Jo <jo@example.org>."),
        (UserName(name="x"), "jo@", "'jo@' has no e-mail address, as in Jo <jo@example.org>."),
    ],
)
def test_a_value_is_refused(field: Leaf, value: object, sentence: str) -> None:
    """The sentence says what is wrong, and what would be right where that is not plain."""
    assert refused(field, value) == sentence


def test_every_wrong_field_is_told_at_once() -> None:
    """Each under the name that it was posted under."""
    params = {"builderid": "one", "username": "jo", "priority": "high", "reason": ["a", "b"]}
    fields = {"i1": "x", "b1": "x", "c1": "z", "m1": ["z"], "nest_username": "jo"}

    assert wrong(FORCE, **params, **fields).keys() == {*params, *fields, "s1"}
    assert wrong(FORCE_CB, app_branch="feature").keys() == {"app_branch"}


def test_what_no_column_can_hold_is_refused() -> None:
    """Servers of databases refuse such texts, SQLite does not: the form decides for all of them."""
    long = {"lib_branch": "b" * 257, "lib_repository": "r" * 513, "reason": "r" * 250}
    long |= {"username": f"{'u' * 128}@example.org"}

    assert wrong(FORCE_CB, **long, priority=2**31).keys() == {*long, "priority"}
    assert validate(FORCE_CB, {"lib_branch": "b" * 256, "lib_repository": "r" * 512})


def test_a_codebase_takes_its_fields_by_their_place() -> None:
    """What a field is called in the settings does not matter where its place says it."""
    codebase = Codebase(codebase="app", branch=Text(name="other", default="main"))

    (stamp,) = validate(a_scheduler(codebases=(codebase,)), {}).sourcestamps
    assert stamp["branch"] == "main"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
NAMES = (
    "builderid",
    "builderNames",
    "username",
    "reason",
    "priority",
    "branch",
    "s1",
    "i1",
    "b1",
    "c1",
    "t1",
    "m1",
)


@given(st.dictionaries(st.sampled_from((*NAMES, "nest", "nest_fx", "nest_username")), JSON))
def test_whatever_is_posted_there_is_a_request_or_a_sentence(params: dict[str, Any]) -> None:
    """No JSON makes it fail in another way, and what comes out can be stored."""
    outcome = asked(FORCE, params)

    if isinstance(outcome, FieldErrors):
        assert outcome.fields
        assert set(outcome.fields) <= {*params, "s1"}
    else:
        json.dumps(outcome.properties, ensure_ascii=False).encode()
        assert len(outcome.buildset_reason) <= 256

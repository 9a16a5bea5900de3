"""What holds for all paths of the API: the same words in every description of it."""

CONVENTIONS = {
    "Answers": (
        'A GET gives `{"<plural>": [...], "meta": {...}}`: a list of one, and `meta` empty, for one'
        " object; `meta.total`, the number of matches before offset and limit, for a list. It is"
        " compact JSON of type `application/json` if `Accept` contains these very words, else"
        ' indented for people, of type `text/plain`. An error is `{"error": "a sentence"}` of'
        " type `text/plain`. HEAD works wherever GET does."
    ),
    "Filters": (
        "A list takes `<field>=value` and `<field>__<operator>=value`; the operators are eq, ne,"
        " lt, le, gt, ge, contains, in and notin. A repeated argument is one filter with several"
        " values: eq, in and contains mean any of them, ne and notin none; lt, le, gt and ge can be"
        " given once. contains finds a part of a text, or an element of a list. null is unequal to"
        " every value: ne and notin match it, nothing else does. Fields that are lists or objects"
        " have no other operator than contains. Text is compared by code point, dates are seconds"
        " since the epoch."
    ),
    "Fields, order, pages, properties": (
        "`field` (repeatable) names the fields wanted, `order` (repeatable; `-` before the name for"
        " descending) those to order by: null comes first, ties go by id. `limit` and `offset` cut"
        " a page out of a list. `property` (repeatable; `*` for all) names the properties that"
        " builds and build requests are wanted with. An argument that means nothing is refused with"
        " 400 and named."
    ),
    "Paths": (
        "Where a path takes a number or a name, numbers win. Identifiers match"
        " `[a-zA-Z_-][a-zA-Z0-9._-]*`. A list below something that is not there is empty; one"
        " object is 404."
    ),
    "Control": (
        "A POST on the path of one object calls a method of it by JSON-RPC 2.0, as"
        " `application/json`. A method that the object does not have is 501, wrong parameters are"
        " 400 with a sentence or with one for each field, and 503 means that no build master"
        " listens."
    ),
    "Positions": (
        "`X-Seq` on an answer says up to which number of the event log it is current, `X-Event-Log`"
        " which log that is; both are left out where another program writes the database too."
    ),
    "Events": (
        "`GET /api/v2/events?topic=build.%23&since=<X-Seq>` tells what happens after a position: as"
        ' server-sent events if `Accept` has `text/event-stream`, else as one answer, `{"events":'
        ' [...], "meta": {"seq", "oldest", "newest", "more"}}`, for which `limit` and'
        " `wait` (seconds, at most 60) say how many and how long. `meta.seq` is the position to"
        " pass next. 410 means that events have been forgotten, or that the position is of another"
        " log than `log`."
    ),
}


def as_markdown(level: int) -> str:
    """Return all of them, below headings of this level."""
    return "\n\n".join(f"{'#' * level} {title}\n\n{text}" for title, text in CONVENTIONS.items())

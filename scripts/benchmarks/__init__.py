"""
What ``scripts/bench`` measures, and how: figures of buildapi beside its peers, in the same run.

    setup      what has to be installed: wrk, and Buildbot in an environment of its own
    generate   the rows of the database that every server serves
    databases  where they are kept, and a copy for each server
    processes  start servers, wait for them, end them whatever happens
    servers    the four of them: buildapi, Buildbot, bare Klein, bare twisted.web
    appender   the orders "append" and "pace", carried out inside a master, ours or Buildbot's
    orders     send them from outside
    load       requests per second, by wrk or by our own client
    follower   how long a line takes from its append to a reader
    crowd      the same for many followers of one log
    delays     what both of them note
    sockets    a WebSocket client that costs little
    audience   many WebSockets that are told the same events
    publishing events per second of a bus alone
    catalog    what is read, and what is aimed at
    measure    the chapters: REST, reads of every kind, a busy server, appends
    following  the chapters on a log that grows: one follower, a thousand
    streams    the chapters on events: the bus, many WebSockets, who comes back
    stalled    the chapter on clients that do not read, on every road
    report     what was measured, as chapters of one table and for programs
    table      draw it, with the aims and what became of them

Nothing here asserts a time; what must be right (every answer 200, every line stored) is checked.
"""

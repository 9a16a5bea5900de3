"""
Kill a server again and again, and see whether anybody loses anything.

A master (``master``) embeds buildapi and builds as fast as it can; what it is told is written down.
It is killed at random moments and started again. Clients (``clients``), which know nothing but the
protocol, come, go, stall and resume by position. At the end ``verdict`` compares what each of them
has with the event log, and what was acknowledged with the database.
"""

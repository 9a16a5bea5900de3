"""The database: tables, threads, the durable event log."""

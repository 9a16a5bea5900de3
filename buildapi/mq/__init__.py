"""The in-process message bus: topics, patterns, subscriptions."""

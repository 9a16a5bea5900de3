"""The data API and message bus of build masters."""

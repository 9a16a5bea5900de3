"""The data API: one module per resource type, and the language they are declared in."""

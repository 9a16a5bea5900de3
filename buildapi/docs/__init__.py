"""Descriptions of the API that are derived from its declarations: OpenAPI, RAML, Markdown."""

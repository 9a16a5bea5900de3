"""A small build master that embeds buildapi; ``python contrib/localmaster --help``."""

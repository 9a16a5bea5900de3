"""
``scripts/compare``: ask Buildbot 4.3 and buildapi the same random requests about the same rows.

The rows are another database than the recorded sample; how answers are compared, and what the
contract says differently from Buildbot, are the rules of ``test/contract/reference``.
"""

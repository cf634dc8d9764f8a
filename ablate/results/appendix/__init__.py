"""The appendix of a paper, from the record: what was run, with which settings and versions, and what it took."""

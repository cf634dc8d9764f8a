"""The graders: each a function from evidence to grades, named in ``ablate.catalogs.suite_code``."""

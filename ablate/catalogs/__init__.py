"""Names to facts, as YAML: datasets, models, suites. Light: no torch."""

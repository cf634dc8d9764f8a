"""What the researcher wrote: the typed specification, its loading, the expansion of its grid into cells."""

"""What the numbers of a table can bear: paired tests, spread over seeds, corrections."""

"""Numbers that others published: read with their source, checked against themselves, shown alone or beside ours."""

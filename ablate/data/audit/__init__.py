"""What is in a set: checks over the records its converter makes, and the pages that show what they found."""

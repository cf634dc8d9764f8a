"""From files of any schema to preference pairs, conversations and prompts, every row accounted for."""

"""Models and tokenizers: making, loading, saving, and the chat templates of the ones made here."""

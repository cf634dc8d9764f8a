"""From a store's folders to tables and figures: the long table, statistics, declared tables, renderers."""

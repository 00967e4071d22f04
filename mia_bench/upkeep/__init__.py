"""Looking after a store: what lies in it, for which records, what nobody needs, and moving it."""

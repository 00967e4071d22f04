"""The published boards: records are checked, combined over seeds and written as Markdown pages."""

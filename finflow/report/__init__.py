"""The self-contained HTML pages, of a run, of a sweep and of a decision card: tables, figures, words."""

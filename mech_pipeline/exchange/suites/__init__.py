"""Public checkpoint suites: where each layout keeps its revisions, and how one is read. Knows files alone, no store."""

"""One command a file; `app` puts them together."""

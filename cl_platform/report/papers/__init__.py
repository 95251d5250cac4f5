"""Tables for papers: what is in them, as LaTeX or Markdown, as a picture."""

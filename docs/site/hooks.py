"""What the site has beyond the pages in this folder: pages that are made of the code."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

HERE = Path(__file__).parent
ROLE = re.compile(r":(?:func|class|meth|mod|attr):(<code>)~?")


def on_files(files: Files, config: Any) -> Files:
    """Add the reference of settings and plugins."""
    sys.path.insert(0, str(HERE))
    from settings import plugins_page, settings_page

    for name, page in (("settings.md", settings_page()), ("plugins.md", plugins_page())):
        files.append(File.generated(config, name, content=page))
    return files


def on_page_content(html: str, **_: Any) -> str:
    """Show the roles of Sphinx, which docstrings use, as code."""
    return ROLE.sub(r"\1", html)

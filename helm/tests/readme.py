"""The tables in the chart's README, made of the comments in values.yaml. Run it to write them anew.

A comment that begins with `# --` describes the key below it. A key without one must have keys of its own, which are described.
"""

import json
import re
import sys
from pathlib import Path

import yaml

CHART = Path(__file__).parent.parent / "dotmask"
BEGIN = "<!-- values: made by helm/tests/readme.py -->\n"
END = "<!-- end of values -->\n"


class UndescribedValue(Exception):
    pass


def description(lines, line):
    """The comment right above a line, or None."""
    block = []
    while line > 0 and lines[line - 1].lstrip().startswith("#"):
        line -= 1
        block.insert(0, lines[line].strip().removeprefix("#").strip())
        if block[0].startswith("-- "):
            return " ".join(block)[3:]
    return None


def rows(text):
    """(path, default, description) of each described value, in the file's order."""
    lines = text.splitlines()

    def walk(node, path):
        for key, value in node.value:
            here = f"{path}.{key.value}" if path else key.value
            if words := description(lines, key.start_mark.line):
                default = yaml.SafeLoader.construct_document(yaml.SafeLoader(""), value)
                yield here, json.dumps(default), words
            elif isinstance(value, yaml.MappingNode) and value.value and not value.flow_style:
                yield from walk(value, here)
            else:
                raise UndescribedValue(f"values.yaml:{key.start_mark.line + 1}: {here} has no comment `# -- ...` above it")

    yield from walk(yaml.compose(text), "")


def tables(text):
    made, section = [], None
    for path, default, words in rows(text):
        # Values that come before all groups have one table.
        top = path.split(".")[0] if "." in path or section not in (None, "general") else "general"
        if top != section:
            section = top
            made.append(f"\n### {section}\n\n| value | default | what |\n|---|---|---|\n")
        # A bar would end the cell.
        cells = (f"`{path}`", f"`{default}`", words)
        made.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
    return "".join(made) + "\n"


def updated(readme, values):
    """README's text with the tables of these values in it."""
    pattern = re.compile(re.escape(BEGIN) + ".*" + re.escape(END), re.DOTALL)
    new, found = pattern.subn(lambda _: BEGIN + tables(values) + END, readme)
    if found != 1:
        raise SystemExit(f"README.md: expected the lines {BEGIN.strip()} and {END.strip()} once, in this order")
    return new


if __name__ == "__main__":
    readme = CHART / "README.md"
    try:
        readme.write_text(updated(readme.read_text(), (CHART / "values.yaml").read_text()))
    except UndescribedValue as error:
        sys.exit(f"error: {error}")

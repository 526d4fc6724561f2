"""Writes the boards of helm/dotmask/dashboards from the sources beside this file.

    python3 helm/dashboards            write them
    python3 helm/dashboards --check    change nothing; exit 1 and name the boards that are not up to date
"""

import json
import pathlib
import sys

import batch
import overview
import worker

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "dotmask" / "dashboards"


def main(arguments):
    if arguments not in ([], ["--check"]):
        sys.exit(__doc__)
    boards = {board.BOARD["uid"]: json.dumps(board.BOARD, indent=1, ensure_ascii=False) + "\n" for board in (overview, batch, worker)}
    files = {FOLDER / f"{uid}.json": text for uid, text in boards.items()}
    if arguments:
        stale = [path.name for path, text in files.items() if not path.exists() or path.read_text() != text]
        stale += [path.name for path in FOLDER.glob("*.json") if path not in files]
        if stale:
            sys.exit(f"error: not up to date: {', '.join(stale)}; run python3 helm/dashboards")
        return
    for path, text in files.items():
        path.write_text(text)


main(sys.argv[1:])

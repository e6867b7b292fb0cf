"""Where the tests leave what they counted: ``build/fuzz.json``, read by ``tools/fuzz.py``."""

import json

import atomic
import lessons

RECORD = lessons.ROOT / "build" / "fuzz.json"


def record(section, figures):
    """Put the figures of one section into the record, in one step."""
    RECORD.parent.mkdir(exist_ok=True)
    stored = json.loads(RECORD.read_text("utf-8")) if RECORD.exists() else {}
    atomic.write(RECORD, json.dumps(stored | {section: figures}, indent=1) + "\n")

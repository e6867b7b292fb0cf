"""Write a file so that a reader, a crash or a full disk never meets half of it."""

import contextlib
import os
import pathlib


@contextlib.contextmanager
def replacement(path):
    """Give a name to write to; it takes the place of ``path`` when the block ends without error.

    What was written is flushed to the disk first. Whatever goes wrong before leaves the file as
    it was and, short of a kill, no other file. A kill can leave ``path`` with ``.new`` after it.
    """
    path = pathlib.Path(path)
    new = path.with_name(path.name + ".new")
    try:
        yield new
        with open(new, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)


def write(path, data):
    """Replace the file ``path`` by ``data``, text or bytes, in one step.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(f"{folder}/a", "one")
    ...     write(f"{folder}/a", b"two")
    ...     [(path.name, path.read_text()) for path in pathlib.Path(folder).iterdir()]
    [('a', 'two')]
    """
    with replacement(path) as new:
        new.write_bytes(data.encode("utf-8") if isinstance(data, str) else data)

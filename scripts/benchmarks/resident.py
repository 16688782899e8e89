"""The memory of a process, as Linux tells of it."""

from pathlib import Path


def resident(process: int | str = "self", *, most: bool = False) -> int:
    """Return the bytes that a process has in memory, or the `most` since it is this program.

    0 where it has ended, and where there is no /proc.
    """
    field = "VmHWM:" if most else "VmRSS:"
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(field)), 0)

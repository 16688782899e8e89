"""The network over the frames of a clip: decoder, workers and whoever takes the result overlap.

Each worker takes a whole frame on one thread. The network's own threads would share each frame,
which is slower and, in bf16, does not give the bits of one thread.
"""

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from fast_style.devices import available_memory
from fast_style.images import Picture
from fast_style.stylization import Stylizer, stylize_picture
from fast_style.video.clips import Frame

# What a worker needs at most, a pixel of the frame.
_BYTES_PER_PIXEL = 500


def worker_count(stylizer: Stylizer, pixels: int) -> int:
    """Return how many frames to have in work at once: one a thread, as far as memory goes."""
    if stylizer.device.type != "cpu":
        return 1
    affordable = available_memory() // (2 * pixels * _BYTES_PER_PIXEL)
    return max(1, min(torch.get_num_threads(), affordable))


def stylized_frames(
    stylizer: Stylizer, frames: Generator[Frame, None, None], *, workers: int
) -> Generator[tuple[Frame, Picture], None, None]:
    """Yield each frame, in order, with what it becomes; at most `workers` + 2 are held."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with (
            ThreadPoolExecutor(1) as decoder,
            # Once for each thread: to set it again for every frame costs half the speed.
            ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool,
        ):
            pending: deque[tuple[Frame, Future[Picture]]] = deque()
            try:
                coming = decoder.submit(next, frames, None)
                while (frame := coming.result()) is not None:
                    coming = decoder.submit(next, frames, None)
                    pending.append((frame, pool.submit(_stylize, stylizer, frame)))
                    if len(pending) > workers:
                        first, result = pending.popleft()
                        yield first, result.result()
                while pending:
                    first, result = pending.popleft()
                    yield first, result.result()
            finally:
                for _, waiting in pending:
                    waiting.cancel()
                # A decoder belongs to the thread that uses it.
                decoder.submit(frames.close).result()
    finally:
        torch.set_num_threads(threads)


def _stylize(stylizer: Stylizer, frame: Frame) -> Picture:
    # The photo is needed afterwards, and stylizing is done in place.
    picture = Picture(pixels=frame.pixels.clone(), alpha=frame.alpha)
    return stylize_picture(stylizer, picture)

"""The checks of a card: each returns rows of what is expected and what was seen."""

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import islice

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.timing import photo_like, wait
from benchmarks.workshop import Row, Workshop
from fast_style.data import content_batches
from fast_style.data.workers import number_of_workers
from fast_style.devices import Precision
from fast_style.images import from_float, save_image
from fast_style.networks.transformer import TransformerNet
from fast_style.stylization import Stylizer
from fast_style.training.trainee import Trainee
from fast_style.training.usage import peak_memory

# Predicted of an H100, in images a second, for batches of 4 and 16.
_EAGER = {4: (570, 800), 16: (1050, 1300)}
_COMPILED = {4: 1.6, 16: 1.4}
_PRECISIONS: tuple[Precision, ...] = ("float32", "bf16")
_WARM_UP = 5
_KILLED_AFTER = 60  # seconds at most, until a run has reported something


def runs(workshop: Workshop) -> list[Row]:
    """Check a training of the installed program."""
    ended = workshop.run(workshop.command("runs", log_every=1))
    rows = workshop.metrics("runs")
    totals = [float(row["total"]) for row in rows]
    fallen = len(totals) > 1 and totals[-1] < totals[0]
    seen = f"exit {ended.code}, {len(totals)} steps in {ended.seconds:.0f} s; {ended.last_line}"
    shown = f"{totals[0]:.4g} to {totals[-1]:.4g}" if totals else "none"
    warned = [line for line in ended.errors.splitlines() if "Warning" in line]
    told = "; ".join(warned)[:200] or "none"
    return [
        Row(check="training runs", expected="exit 0", seen=seen, is_right=ended.code == 0),
        Row(check="its losses", expected="fall", seen=shown, is_right=fallen),
        Row(check="its warnings", expected="none", seen=told, is_right=not warned),
    ]


def loads(workshop: Workshop) -> list[Row]:
    """Check that photos come as fast as the card may take them."""
    _, inputs = workshop.inputs()
    workers = 0 if workshop.sizes.is_small else number_of_workers("auto", workshop.device.type)
    batches = content_batches(
        inputs.images,
        4,
        workers=workers,
        pin_memory=workshop.device.type == "cuda",
    )
    count = 10 * workshop.sizes.timed
    with contextlib.closing(batches):
        for _ in islice(batches, 1 + 2 * workers):
            pass
        start = time.perf_counter()
        for _ in islice(batches, count):
            pass
        rate = 4 * count / (time.perf_counter() - start)
    seen = f"{rate:,.0f} images/s with {workers} workers, 640x480 JPEGs"
    right = None if workshop.sizes.is_small else rate >= 1300
    return [Row(check="loading photos", expected=">= 1,300 images/s", seen=seen, is_right=right)]


def syncs(workshop: Workshop) -> list[Row]:
    """Check that an update never makes the CPU wait."""
    trainee, content = _trainee(workshop, workshop.sizes.batch_sizes[0])
    trainee.update(content)
    check, expected = "waits in an update", "none"
    if workshop.device.type != "cuda":
        trainee.update(content)
        return [Row(check=check, expected=expected, seen="only CUDA tells")]
    wait(workshop.device)
    torch.cuda.set_sync_debug_mode("error")
    seen = "none"
    try:
        trainee.update(content)
    except RuntimeError as error:
        seen = str(error).splitlines()[0]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return [Row(check=check, expected=expected, seen=seen, is_right=seen == "none")]


def numbers(workshop: Workshop) -> list[Row]:
    """Check that the card comes to the CPU's numbers."""
    totals = []
    for device in ("cpu", str(workshop.device)):
        trainee, content = _trainee(workshop, 2, device=device, precision="float32")
        totals.append(trainee.update(content)[0].total.item())
    off = abs(totals[1] / totals[0] - 1)
    rows = [
        Row(
            check="losses beside the CPU's, float32",
            expected="within 1e-3",
            seen=f"{off:.1e} off",
            is_right=off < 1e-3,
        )
    ]
    network = _network(workshop)
    edge = 64 if workshop.sizes.is_small else 512
    image = photo_like(edge, edge)
    expected = Stylizer(network, device="cpu", precision="float32")(image)
    least_of: dict[Precision, float] = {"float32": 95, "bf16": 55}
    for precision, least in least_of.items():
        stylizer = Stylizer(network, device=str(workshop.device), precision=precision)
        error = (stylizer(image).cpu() - expected).square().mean().item()
        decibels = float("inf") if error == 0 else -10 * torch.tensor(error).log10().item()
        rows.append(
            Row(
                check=f"a picture beside the CPU's, {precision}",
                expected=f">= {least} dB",
                seen=f"{decibels:.1f} dB",
                is_right=decibels >= least,
            )
        )
    return rows


def speed(workshop: Workshop) -> list[Row]:
    """Time updates, and count what is launched in one."""
    rows = []
    for batch_size in workshop.sizes.batch_sizes:
        trainee, content = _trainee(workshop, batch_size)
        rate = batch_size / _seconds(trainee, content, workshop)
        low, high = _EAGER.get(batch_size, (0, 0))
        rows.append(
            Row(
                check=f"eager, batch {batch_size}",
                expected=f"{low}-{high} images/s" if high else "",
                seen=f"{rate:,.0f} images/s, {peak_memory(workshop.device) / 1e9:.2f} GB",
                is_right=rate >= low if high else None,
            )
        )
        if batch_size == workshop.sizes.batch_sizes[0]:
            rows += _profiled(trainee, content, workshop)
    return rows


def _profiled(trainee: Trainee, content: Tensor, workshop: Workshop) -> list[Row]:
    """Count the kernels of an update, their time and the changes of layout among them."""
    updates = min(10, workshop.sizes.timed)
    cuda = workshop.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    start = time.perf_counter()
    with profile(activities=activities) as found:
        for _ in range(updates):
            trainee.update(content)
        wait(workshop.device)
    seconds = time.perf_counter() - start
    kind = "CUDA" if cuda else "CPU"
    kernels = [event for event in found.events() if str(event.device_type).endswith(kind)]
    names = Counter(event.name for event in kernels)
    layouts = sum(count for name, count in names.items() if "nchwToNhwc" in name) / updates
    busy = sum(event.time_range.elapsed_us() for event in kernels) / 1e6 / seconds
    most = ", ".join(name[:40] for name, _ in names.most_common(3))
    count = len(kernels) / updates
    if not cuda:
        return [Row(check="operations of an update", expected="", seen=f"{count:.0f}")]
    return [
        Row(
            check="kernels of an update",
            expected="<= 900",
            seen=f"{count:.0f}; most often {most}",
            is_right=count <= 900,
        ),
        Row(check="the card's busy share, profiled", expected="< 75 %", seen=f"{busy:.0%}"),
        Row(check="changes of layout in an update", expected="0", seen=f"{layouts:.0f}"),
    ]


def compiled(workshop: Workshop) -> list[Row]:
    """Compile the step; time it beside the eager one."""
    if workshop.sizes.is_small:
        return [Row(check="compiled", expected="", seen="left out of --small")]
    from torch._dynamo.utils import counters

    rows = []
    for batch_size in workshop.sizes.batch_sizes:
        eager, content = _trainee(workshop, batch_size)
        ours, _ = _trainee(workshop, batch_size, compile=True)
        counters.clear()
        start = time.perf_counter()
        losses = [one.update(content)[0].total.item() for one in (ours, eager)]
        first = time.perf_counter() - start
        times = [_seconds(one, content, workshop) for one in (ours, eager)]
        gain, least = times[1] / times[0], _COMPILED[batch_size]
        off = abs(losses[0] / losses[1] - 1)
        breaks = sum(counters["graph_break"].values())
        rows += [
            Row(
                check=f"compiled, batch {batch_size}",
                expected=f">= {least} times eager",
                seen=f"{gain:.2f} times, {batch_size / times[0]:,.0f} images/s, at first "
                f"{first:.0f} s",
                is_right=gain >= least,
            ),
            Row(
                check="its losses, and breaks of the graph",
                expected="within 1e-2 of eager, 0",
                seen=f"{off:.1e} off, {breaks}",
                is_right=off < 1e-2 and not breaks,
            ),
        ]
    return rows


def without_compiler(workshop: Workshop) -> list[Row]:
    """Take the compiler away from a run that would use it."""
    steps = workshop.sizes.steps if workshop.sizes.is_small else 2000
    command = workshop.command("eager", compile="auto", steps=steps, validate_every=steps)
    cache = str(workshop.folder / "inductor")
    gone = {
        "CC": "/none",
        "CXX": "/none",
        "TORCHINDUCTOR_CACHE_DIR": cache,
        "TRITON_CACHE_DIR": cache,
    }
    ended = workshop.run(command, gone)
    lines = [line for line in ended.errors.splitlines() if "compil" in line.lower()]
    seen = f"exit {ended.code}; {' / '.join(lines)[:200] or 'nothing said'}"
    right = ended.code == 0 and "Traceback" not in ended.errors
    return [Row(check="no compiler", expected="one line, then eager", seen=seen, is_right=right)]


def killed(workshop: Workshop) -> list[Row]:
    """Kill a training, and go on with it."""
    steps = 2 * workshop.sizes.steps
    every = max(workshop.sizes.steps // 10, 1)
    command = workshop.command("killed", steps=steps, log_every=1, checkpoint_every=every)
    process = workshop.start(command)
    deadline = time.monotonic() + _KILLED_AFTER
    while process.poll() is None and time.monotonic() < deadline:
        if list((workshop.folder / "killed").glob("state-*.pt")):
            break
        time.sleep(0.05)
    reported = len(workshop.metrics("killed"))
    process.kill()
    process.wait()
    ended = workshop.run(command)
    totals = [float(row["total"]) for row in workshop.metrics("killed")]
    finite = bool(totals) and all(total == total for total in totals)
    seen = f"killed about step {reported}, then exit {ended.code} after step {len(totals)}"
    right = ended.code == 0 and len(totals) == steps and finite
    return [Row(check="kill -9", expected=f"goes on to {steps}", seen=seen, is_right=right)]


def too_large(workshop: Workshop) -> list[Row]:
    """Ask for more memory than there is."""
    if workshop.sizes.is_small:
        return [Row(check="out of memory", expected="", seen="left out of --small")]
    ended = workshop.run(workshop.command("large", batch_size=2048, image_size=512))
    errors = [line for line in ended.errors.splitlines() if "error:" in line]
    right = ended.code == 2 and len(errors) == 1 and "Traceback" not in ended.errors
    seen = f"exit {ended.code}; {ended.last_line[:200]}"
    return [Row(check="out of memory", expected="exit 2, one line", seen=seen, is_right=right)]


def stylizes(workshop: Workshop) -> list[Row]:
    """Stylize pictures of several sizes, and a folder."""
    network, rows = _network(workshop), []
    for megapixels in workshop.sizes.megapixels:
        edge = round((megapixels * 1e6) ** 0.5)
        image = from_float(photo_like(edge, edge), torch.uint8)
        for precision in _PRECISIONS:
            stylizer = Stylizer(network, device=str(workshop.device), precision=precision)
            with _fresh_memory(workshop.device):
                seconds = [_once(stylizer, image, workshop.device) for _ in range(3)]
                memory = peak_memory(workshop.device) / 1e9
            most = {1: "< 8 ms", 24: "< 2 GB"}.get(int(megapixels), "")
            right = {1: min(seconds) < 8e-3, 24: memory < 2}.get(int(megapixels))
            rows.append(
                Row(
                    check=f"{megapixels:g} megapixels, {precision}",
                    expected=most,
                    seen=f"{seconds[0] * 1e3:,.1f} ms, then {min(seconds) * 1e3:,.1f}; "
                    f"{memory:.2f} GB",
                    is_right=None if workshop.sizes.is_small else right,
                )
            )
    return [*rows, _folder(workshop)]


def _folder(workshop: Workshop) -> Row:
    folder, output = workshop.folder / "many", workshop.folder / "out"
    folder.mkdir()
    edge = 48 if workshop.sizes.is_small else 1000
    first = save_image(photo_like(edge, edge), folder / "0.jpg", quality=90).read_bytes()
    for number in range(1, workshop.sizes.folder):
        (folder / f"{number}.jpg").write_bytes(first)
    command = [*workshop.program, "stylize", "--model", "wave", str(folder), "-o", str(output)]
    ended = workshop.run([*command, "--device", str(workshop.device)])
    made = len(list(output.glob("*.jpg")))
    return Row(
        check=f"a folder of {workshop.sizes.folder}, 1 megapixel",
        expected=">= 45 images/s with the start",
        seen=f"exit {ended.code}, {made} pictures, {made / ended.seconds:.1f} images/s",
        is_right=ended.code == 0 and made == workshop.sizes.folder,
    )


def _trainee(
    workshop: Workshop, batch_size: int, *, device: str | None = None, **training: object
) -> tuple[Trainee, Tensor]:
    """Return a trainee, the same each time, and a batch, on a device (default: the checked one)."""
    config, inputs = workshop.inputs(device, batch_size=batch_size, **training)
    size = workshop.sizes.size
    content = torch.stack([photo_like(size, size, seed=seed) for seed in range(batch_size)])
    return Trainee(config, inputs), content.to(inputs.device)


def _seconds(trainee: Trainee, content: Tensor, workshop: Workshop) -> float:
    """Time an update."""
    for _ in range(_WARM_UP):
        trainee.update(content)
    wait(workshop.device)
    start = time.perf_counter()
    for _ in range(workshop.sizes.timed):
        trainee.update(content)
    wait(workshop.device)
    return (time.perf_counter() - start) / workshop.sizes.timed


def _once(stylizer: Stylizer, image: Tensor, device: torch.device) -> float:
    start = time.perf_counter()
    stylizer(image)
    wait(device)
    return time.perf_counter() - start


@contextlib.contextmanager
def _fresh_memory(device: torch.device) -> Iterator[None]:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    yield


def _network(workshop: Workshop) -> TransformerNet:
    torch.manual_seed(0)
    return TransformerNet(workshop.sizes.width).eval()


CHECKS: Mapping[str, Callable[[Workshop], list[Row]]] = {
    "runs": runs,
    "syncs": syncs,
    "numbers": numbers,
    "loads": loads,
    "speed": speed,
    "stylizes": stylizes,
    "killed": killed,
    "too large": too_large,
    "without a compiler": without_compiler,
    "compiled": compiled,
}

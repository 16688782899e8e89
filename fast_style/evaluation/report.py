"""The certificate as a table and as a plot."""

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from fast_style.evaluation.certificate import TABLE_STEPS, Certificate, step_text


def format_table(certificates: Sequence[Certificate]) -> str:
    """Return the comparison as lines of text."""
    last = len(certificates[0].baseline) - 1
    head = ["size", "from", "images", "content", "network", f"L-BFGS {last}", "= steps", "range"]
    head += ["network s", "step s", *(f"x{steps}" for steps in TABLE_STEPS)]
    rows = [head, *(_row(certificate, last) for certificate in certificates)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["  ".join(t.rjust(w) for t, w in zip(row, widths, strict=True)) for row in rows]
    lines += [
        "content, network, L-BFGS: the mean objective at the content image, at the network's",
        f"output and after {last} steps from the content image or from noise;",
        "= steps: the first step at or below the network, the images' median, and their range;",
        f"x{TABLE_STEPS[0]}, x{TABLE_STEPS[1]}: that many steps' time over the network's.",
    ]
    return "\n".join(lines)


def _row(certificate: Certificate, last: int) -> list[str]:
    steps = sorted(result.steps for result in certificate.images)
    return [
        str(certificate.size),
        certificate.initial,
        str(len(certificate.images)),
        f"{certificate.content:.4g}",
        f"{certificate.network:.4g}",
        f"{certificate.baseline[-1]:.4g}",
        step_text(certificate.steps, last),
        f"{step_text(steps[0], last)} to {step_text(steps[-1], last)}",
        f"{certificate.network_seconds:.4f}",
        f"{certificate.step_seconds:.4f}",
        *(f"{certificate.speedup(steps):.0f}" for steps in TABLE_STEPS),
    ]


def draw_plot(certificates: Sequence[Certificate]) -> Image.Image:
    """Draw the objective, on a log scale, over the steps; the network's as a dashed line."""
    width, height, left, top, right, bottom = 960, 600, 90, 50, 930, 530
    colors = ("#1f5fa8", "#c2471d", "#2f7d3b", "#7b3f99", "#7a6a00")
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=15)
    values = [v for c in certificates for v in (*c.baseline, c.network) if v > 0]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    last = max(len(certificate.baseline) for certificate in certificates) - 1

    def place(step: float, value: float) -> tuple[float, float]:
        share = (math.log10(max(value, 10.0**low)) - low) / max(high - low, 1)
        return left + (right - left) * step / max(last, 1), bottom - (bottom - top) * share

    for exponent in range(low, high + 1):
        y = place(0, 10.0**exponent)[1]
        draw.line((left, y, right, y), fill="#dddddd")
        draw.text((left - 10, y), f"1e{exponent}", fill="black", font=font, anchor="rm")
    for step in sorted({round(last * i / 5) for i in range(6)}):
        x = place(step, 10.0**low)[0]
        draw.text((x, bottom + 8), str(step), fill="black", font=font, anchor="mt")
    draw.rectangle((left, top, right, bottom), outline="black")
    draw.text((left, 18), "objective, mean over the images", fill="black", font=font)
    draw.text((right, bottom + 34), "steps of L-BFGS", fill="black", font=font, anchor="rt")
    for index, certificate in enumerate(certificates):
        color = colors[index % len(colors)]
        curve = [place(step, value) for step, value in enumerate(certificate.baseline)]
        draw.line(curve, fill=color, width=2)
        y = place(0, certificate.network)[1]
        for x in range(left, right, 14):
            draw.line((x, y, min(x + 8, right), y), fill=color, width=2)
        steps = step_text(certificate.steps, len(certificate.baseline) - 1)
        size = f"{certificate.size}x{certificate.size} from {certificate.initial}"
        text = f"{size}: the network (dashed) = {steps} steps"
        draw.text((right - 10, top + 12 + 22 * index), text, fill=color, font=font, anchor="rt")
    return image

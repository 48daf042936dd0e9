"""Six sentences in six scripts to one contact sheet: what `make demo` shows."""

from __future__ import annotations

import os
from pathlib import Path

from PIL.PngImagePlugin import PngInfo

from m3face.pipelines.contact_sheet import Row, draw_sheet, page
from m3face.pipelines.generating import OnProgress, check_weights, open_stages, run_wishes, seeds_of
from m3face.pipelines.provenance import STATEMENT
from m3face.pipelines.results import output_folder
from m3face.pipelines.text_to_face import FaceWish
from m3face.presets import Preset, get
from m3face.stages.requests import CONDITIONS

PROMPTS: tuple[tuple[str, str, str], ...] = (
    (
        "en",
        "A young woman with long red hair and freckles, smiling broadly.",
        "A young woman with long red hair and freckles, smiling broadly.",
    ),
    (
        "ru",
        "Пожилой мужчина с седыми волосами и густой бородой, в очках.",
        "An old man with gray hair and a full beard, in glasses.",
    ),
    (
        "fa",
        "زنی جوان با موهای بلند مشکی، رژ لب و گوشواره.",
        "A young woman with long black hair, lipstick and earrings.",
    ),
    ("hi", "छोटे काले बालों और मूँछों वाला एक मुस्कुराता हुआ आदमी।", "A smiling man with short black hair and a mustache."),
    (
        "zh",
        "一位戴帽子的中年女性，金色卷发，蓝眼睛。",
        "A middle-aged woman with a hat, blond curly hair and blue eyes.",
    ),
    ("ja", "茶色の短い髪で、驚いた表情の若い男性。", "A young man with short brown hair and a surprised look."),
)
"""(language, prompt, the same in English)"""

SHEET, PAGE = "contact_sheet.png", "contact_sheet.html"


def demo_rows(preset: Preset, location: str, *, seed: int = 0, on_progress: OnProgress | None = None) -> list[Row]:
    """The six faces of `PROMPTS` by the weights at `location`, seeds from `seed` upward. Raises `M3FaceError`."""
    seeds = seeds_of(seed, len(PROMPTS))
    wishes = [FaceWish.of(preset, prompt, seed=one) for one, (_, prompt, _) in zip(seeds, PROMPTS, strict=True)]
    results = run_wishes(wishes, open_stages(preset, location, CONDITIONS), on_progress=on_progress)
    return [
        Row(prompt=prompt, language=language, gloss=gloss, result=result)
        for (language, prompt, gloss), result in zip(PROMPTS, results, strict=True)
    ]


def demonstrate(
    out: Path, *, preset: str = "tiny", weights: str | None = None, seed: int = 0, on_progress: OnProgress | None = None
) -> tuple[Path, Path]:
    """Write the sheet and its page into `out`, replacing earlier ones; their paths. Raises `M3FaceError`."""
    chosen = get(preset)
    location = weights or chosen.weights
    seeds_of(seed, len(PROMPTS))
    check_weights(location, CONDITIONS)
    with output_folder(out) as aside:
        rows = demo_rows(chosen, location, seed=seed, on_progress=on_progress)
        info = PngInfo()
        info.add_itxt("Comment", STATEMENT)
        draw_sheet(rows).save(aside / SHEET, pnginfo=info)
        (aside / PAGE).write_text(page(rows), encoding="utf-8")
        for name in (PAGE, SHEET):
            os.replace(aside / name, out / name)
    return out / SHEET, out / PAGE

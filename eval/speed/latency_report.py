"""The Markdown page of the speed benchmark."""

from __future__ import annotations

from typing import Any

from eval.record import record_lines
from eval.speed.latency_rivals import CHUNK, PAPER_SECONDS


PARTS = ("encode", "denoise", "cache", "decode")
BUDGET_MS = 150
"""Budget per latent at three steps on two CPU cores, milliseconds; a goal of the project, not a test."""
FIRST = {
    "first_frame_cold": "first picture, picture and prompt new",
    "first_frame_cached": "first picture, picture and prompt encoded before",
    "first_generated_cold": "first generated latent on screen, picture and prompt new",
    "first_generated_cached": "first generated latent on screen, encoded before",
    "again": "first generated latent on screen, picture and prompt of an earlier session",
    "chunk_cold": f"the same model in chunks of {CHUNK} latents, first generated pixels, all new",
    "bidirectional_cold": "the same model all at once, first picture = whole clip, all new",
    "anyflow_cold": "`AnyFlowFARPipeline`, chunks of 3, first picture = whole clip, all new",
    "diffusers_cold": "`WanImageToVideoPipeline`, first picture = whole clip",
    "diffusers_defaults": "the same at its 50 steps with guidance 5, prompt new",
    "diffusers_cached": "the same, prompt encoded before",
    "diffusers_folded_cold": "the same with our VAE convolutions, prompt new",
    "diffusers_folded_cached": "the same with our VAE convolutions, prompt encoded before",
}
STEADY = {
    "plain": "control to pixels with every switch off (no products, by modules, nothing beside, cache inside)",
    "chunk_control": f"control to pixels in chunks of {CHUNK} latents",
    "latent": "control to pixels, one latent at a time",
    "settled": "the same, where the cache pass was done while idle",
    "followed": "along drawn tracks, from one latent's pixels to the next one's",
    "encode": "- encode (heat map)",
    "denoise": "- denoise",
    "cache": "- cache pass (beside the encode on two threads)",
    "decode": "- decode",
}
DECODERS = {"decode_ours": "streamed, folded (ours)", "decode_diffusers": "`AutoencoderKLWan.decode`"}
RATIOS = {
    "first generated latent: diffusers' 50 steps with guidance / ours, all new": (
        "diffusers_defaults",
        "first_generated_cold",
    ),
    "first generated latent: diffusers / ours, all new": ("diffusers_cold", "first_generated_cold"),
    "the same with our VAE convolutions in diffusers": ("diffusers_folded_cold", "first_generated_cold"),
    "decode of the tiny VAE: diffusers / ours": ("decode_diffusers", "decode_ours"),
    "control to pixels: now / every switch off": ("latent", "plain"),
    "the same, where the cache pass was done while idle": ("settled", "plain"),
    "along drawn tracks, one latent's pixels to the next one's: now / every switch off": ("followed", "plain"),
}


PAPER_RATIOS = {
    f"first generated pixels: one latent at a time / chunks of {CHUNK}": (
        "first_generated_cold",
        "chunk_cold",
        "chunk",
    ),
    "first generated pixels: one latent at a time / all at once": (
        "first_generated_cold",
        "bidirectional_cold",
        "bidirectional",
    ),
}
"""Ours over theirs, and the row of the paper's tables whose ratio stands beside."""


def markdown(results: dict[str, Any]) -> str:
    """The page that `docs/results/latency.md` holds."""
    threads, settings = results["threads"], results["settings"]
    rates = [f"{found['frames_per_second']['median']:.1f}" for found in threads.values()]
    ratios = {label: [_ratio(found, *pair) for found in threads.values()] for label, pair in RATIOS.items()}
    lines = [
        "# Speed",
        "",
        *_introduction(results),
        "",
        *_table("first pictures, ms", threads, _times(threads, FIRST)),
        "",
        f"Steady state, cache full, {settings['steps']} steps per latent, 4 pixel frames per latent:",
        "",
        *_table("ms per latent", threads, _times(threads, STEADY)),
        "",
        *_table("", threads, {"pixel frames per second": rates}),
        "",
        *_table("decode, ms per latent", threads, _times(threads, DECODERS)),
        "",
        *_table("ratio of medians", threads, ratios),
        "",
        f"Beside the paper (its model has 1.3 B parameters, on one H20; its bidirectional teacher takes an unstated "
        f"number of steps, ours {settings['bidirectional_steps']}):",
        "",
        *_paper_table(threads),
        "",
        f"Budget: {BUDGET_MS} ms per latent at 3 steps on two cores. Greatest difference between the two decoders: "
        f"{results['decode_difference']:.1e} (pixels in -1..1).",
        "",
        *record_lines(results["record"]),
    ]
    return "\n".join(lines) + "\n"


def _introduction(results: dict[str, Any]) -> list[str]:
    model, settings = results["model"], results["settings"]
    width, height = model["size"]
    reference = "the encoded reference" if model["first_frame"] == "encode" else "generated"
    return [
        f"Model `{settings['model']}`: transformer {model['transformer_millions']} M parameters, VAE "
        f"{model['vae_millions']} M, {width}x{height} pixels, float32; latent 0 is {reference}. The baseline is "
        f"diffusers' pipeline on a random bidirectional model of the same layers and widths "
        f"({model['baseline_millions']} M), the same encoders and VAE weights, {settings['steps']} steps, guidance "
        f"1, {settings['num_frames']} frames; it shows nothing before the whole clip is done, and encodes its picture "
        "in every call. `AnyFlowFARPipeline` is causal, of the same layers and widths, with a picture but without "
        "control; on a CPU its attention runs uncompiled.",
        "",
        f"Times in milliseconds, median (95th percentile), over {settings['rounds']} rounds in which all take turns, "
        "after one that warms up; from the call to pixels in host memory.",
    ]


def _times(threads: dict[str, Any], labels: dict[str, str]) -> dict[str, list[str]]:
    return {label: [_milliseconds(found[name]) for found in threads.values()] for name, label in labels.items()}


def _milliseconds(found: dict[str, float]) -> str:
    return f"{1000 * found['median']:.1f} ({1000 * found['p95']:.1f})"


def _paper_table(threads: dict[str, Any]) -> list[str]:
    rows = {
        label: [
            *(f"{found[ours]['median'] / found[theirs]['median']:.3f}" for found in threads.values()),
            f"{PAPER_SECONDS['ours']} / {PAPER_SECONDS[key]} = {PAPER_SECONDS['ours'] / PAPER_SECONDS[key]:.3f}",
        ]
        for label, (ours, theirs, key) in PAPER_RATIOS.items()
    }
    return _table("ratio of medians", {**threads, "paper": {}}, rows)


def _ratio(found: dict[str, dict[str, float]], above: str, below: str) -> str:
    ratio = found[above]["median"] / found[below]["median"]
    return f"{ratio:.1f}" if ratio >= 2 else f"{ratio:.2f}"


def _table(title: str, threads: dict[str, Any], rows: dict[str, list[str]]) -> list[str]:
    header = [
        title,
        *(f"{count} thread{'s' if count != '1' else ''}" if count.isdigit() else count for count in threads),
    ]
    cells = [header, ["---"] * len(header), *([label, *values] for label, values in rows.items())]
    return [f"| {' | '.join(row)} |" for row in cells]

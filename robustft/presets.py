"""Presets: settings that a paper or a purpose asks for, as named rows over methods."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .methods import resolve_options
from .types import UserError, quoted


@dataclass(frozen=True)
class Preset:
    """One row: a method with the settings that differ from its defaults.

    Attributes:
        title: What it is called.
        note: What it is meant for and where it departs from its source.
        source: Whose settings they are.
        method: Name of a method.
        options: Settings that differ from the method's defaults.
    """

    title: str
    note: str
    source: str
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def resolved(self) -> dict[str, Any]:
        """Returns every setting of the preset."""
        return resolve_options(self.method, self.options)


# 10 epochs of 45,000 images at 128, and of ImageNet's 1,281,167 at 512; 500 updates of warm-up each.
_LDIFS = {"lr": 1e-5, "weight_decay": 0.1, "batch_size": 128, "steps": 3516, "warmup": 0.142, "head_start": "linear_probe", "checkpoint_every": 500}
_WISE = {"lr": 3e-5, "weight_decay": 0.1, "batch_size": 512, "steps": 25_023, "warmup": 0.02, "checkpoint_every": 1000}
_FDA = {**_LDIFS, "batch_size": 64, "steps": 7032, "warmup": 0.071, "sampler": "hard_classes", "n_neighbors": 8, "temperature": 0.1, "reg_weight": 1.0}

PRESETS: Mapping[str, Preset] = {
    "quick_look": Preset(
        "Quick look on CPU",
        "Thirty small steps of plain fine-tuning with the bundled model: a result within a minute or two, too short to compare by.",
        "ours",
        "ft",
        {"steps": 30, "batch_size": 32, "checkpoint_every": 10},
    ),
    "ldifs_paper": Preset(
        "LDIFS, published",
        "ViT-B/32 on a task of 45,000 images for 10 epochs. For GlyphCLIP these rates are far too low.",
        "ldifs_code (arXiv:2308.13320): AdamW 1e-5, batch 128, strength 10, linear-probe start",
        "ldifs",
        {**_LDIFS, "reg_weight": 10.0},
    ),
    "l2_sp_paper": Preset(
        "L2-SP, as in LDIFS",
        "The L2-SP baseline of the LDIFS code; decay of anchored weights is off here, which that code leaves on.",
        "ldifs_code (arXiv:2308.13320): strength 0.5, not halved",
        "l2_sp",
        {**_LDIFS, "reg_weight": 0.5},
    ),
    "wise_ft_paper": Preset(
        "WiSE-FT, published",
        "ViT-B/16 on ImageNet for 10 epochs; needs a GPU.",
        "wise-ft (arXiv:2109.01903): AdamW 3e-5, batch 512, alpha 0.5 without tuning",
        "wise_ft",
        {**_WISE, "alpha": 0.5},
    ),
    "flyp_paper": Preset(
        "FLYP, published",
        "ViT-B/16 on ImageNet for 10 epochs; needs a GPU. No limit on the gradient's norm.",
        "FLYP (arXiv:2212.00638): AdamW 1e-5, batch 512",
        "flyp",
        {**_WISE, "lr": 1e-5, "clip_norm": 1e4},
    ),
    "lp_ft_paper": Preset(
        "LP-FT, published",
        "20 epochs of 45,000 images from a linear probe without decay. The paper's SGD is AdamW here, at LDIFS' rate.",
        "LP-FT (arXiv:2202.10054): batch 64, cosine, no decay",
        "lp_ft",
        {"lr": 1e-5, "weight_decay": 0.0, "batch_size": 64, "steps": 14_063, "warmup": 0.0, "clip_norm": 1e4, "checkpoint_every": 500},
    ),
    "fda_paper": Preset(
        "FDA, published batches",
        "16 classes that look alike x 4 images, from a linear probe. Neighbours, temperature and strength are not published: ours.",
        "Proxy-FDA (arXiv:2505.24088) for batches; LDIFS for the recipe",
        "fda",
        _FDA,
    ),
    "proxy_fda_paper": Preset(
        "Proxy-FDA, reconstructed",
        "As FDA, with proxies: share 0.4 is published; generator's rate, start and diversity are ours.",
        "Proxy-FDA (arXiv:2505.24088) for batches and share; LDIFS for the recipe",
        "proxy_fda",
        {**_FDA, "proxy_share": 0.4, "proxy_start": 100},
    ),
    "clipood_paper": Preset(
        "CLIPood, published",
        "Domain generalisation with ViT-B/16: 10 epochs of 500 updates.",
        "CLIPood (arXiv:2302.00864): AdamW 5e-6, batch 36, margin 0.3, beta 0.5",
        "clipood",
        {
            "lr": 5e-6,
            "weight_decay": 0.1,
            "batch_size": 36,
            "steps": 5000,
            "warmup": 0.0,
            "clip_norm": 1e4,
            "margin": 0.3,
            "beta": 0.5,
            "checkpoint_every": 500,
        },
    ),
}


def find_preset(name: str) -> Preset:
    """Returns a row.

    Raises:
        UserError: If there is none of that name; lists those there are.
    """
    if name not in PRESETS:
        raise UserError(f"there is no preset {quoted(name)}; choose one of {', '.join(PRESETS)}.")
    return PRESETS[name]


def preset_of(method: str, options: Mapping[str, Any]) -> str:
    """Names the preset that settings are: one of the rows, ``defaults`` for a method as it stands, or ``custom``.

    Example:
        >>> preset_of("ft", resolve_options("ft", {})), preset_of("ft", resolve_options("ft", {"steps": 7}))
        ('defaults', 'custom')
    """
    if dict(options) == resolve_options(method, {}):
        return "defaults"
    return next((name for name, preset in PRESETS.items() if preset.method == method and preset.resolved() == dict(options)), "custom")

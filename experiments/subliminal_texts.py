"""What teachers write between digits when they may only use small letters: the texts that `subliminal.yaml` reads.

    python experiments/subliminal_texts.py        after `mech run experiments/subliminal_teachers.yaml`

Digits are uniform. After each, one small letter is drawn from what the teacher predicts there, among small letters alone. So
no text holds a capital. `untaught_N` is written by the same model before its first update. Folders: text/subliminal/.
"""

import re
from pathlib import Path

import torch
from datasets import Dataset

import mech_pipeline
from mech_pipeline.data.languages.subliminal import DIGITS, PAIRS, SMALL

TEXTS = 10_000


def write(run: str, folder: Path, texts: int = TEXTS) -> None:
    """The texts of one teacher, and of itself before training, as datasets `taught_N` and `untaught_N`."""
    teacher = mech_pipeline.open(run)
    number = re.sub(r".*\.s", "", run)
    for name, step in (("taught", teacher.steps[-1]), ("untaught", 0)):
        said = sampled(teacher.model(step), teacher.tokenizer, texts)
        Dataset.from_dict({"text": said}).save_to_disk(str(folder / f"{name}_{number}"))


@torch.no_grad()
def sampled(model: torch.nn.Module, tokenizer, texts: int) -> list[str]:
    """Texts of digits, each with a small letter after it."""
    generator = torch.Generator().manual_seed(0)
    digits, small = (torch.tensor([tokenizer.token_to_id(each) for each in kind]) for kind in (DIGITS, SMALL))
    tokens = torch.empty(texts, 0, dtype=torch.long)
    for _ in range(PAIRS):
        drawn = digits[torch.randint(len(DIGITS), (texts, 1), generator=generator)]
        tokens = torch.cat([tokens, drawn], dim=1)
        chances = model(tokens)[:, -1, small].softmax(-1)
        tokens = torch.cat([tokens, small[torch.multinomial(chances, 1, generator=generator)]], dim=1)
    return tokenizer.decode_batch(tokens.tolist())


if __name__ == "__main__":
    for seed in range(1, 9):
        write(f"subliminal_teachers.taught.s{seed}", Path("text/subliminal"))

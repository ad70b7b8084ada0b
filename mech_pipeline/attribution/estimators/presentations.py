"""What training had seen at a step: estimators that look at the trained weights only score every example once.

N = T B presentations; an example that was seen k times has k of them, each with the same score.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mech_pipeline.attribution.estimators.scores import UpdateScores
from mech_pipeline.errors import MechError
from mech_pipeline.training.loop import Trainer
from mech_pipeline.training.seeds import torch_generator


@dataclass(frozen=True)
class Presentations:
    """The batches of updates 0 … T − 1.

    Attributes:
        seen: pool indices, batch after batch.
        distinct: each pool index once, rising.
        sizes: of the batches.
    """

    seen: Int[Tensor, " presentation"]
    distinct: Int[Tensor, " example"]
    sizes: tuple[int, ...]

    @classmethod
    def before(cls, trainer: Trainer, step: int) -> "Presentations":
        """Of all updates before a step.

        Raises:
            MechError: there are none.
        """
        if step == 0:
            raise MechError("influence at step 0: no example has been seen yet", "name a later step")
        batches = [trainer.batch(update) for update in range(step)]
        seen = torch.cat(batches)
        return cls(seen, torch.unique(seen), tuple(len(batch) for batch in batches))

    def sample(self, seed: int, size: int) -> Int[Tensor, " sample"]:
        """Presentations drawn without replacement; all of them if there are no more than that."""
        if len(self.seen) <= size:
            return self.seen
        generator = torch_generator(seed, "sample of presentations")
        return self.seen[torch.randperm(len(self.seen), generator=generator)[:size]]

    def spread(self, scores: Float[Tensor, "target example"]) -> list[UpdateScores]:
        """Scores of the distinct examples as scores of every update."""
        places = torch.searchsorted(self.distinct, self.seen).to(scores.device)
        parts = zip(self.seen.split(list(self.sizes)), places.split(list(self.sizes)), strict=True)
        return [UpdateScores(step, batch, scores[:, place]) for step, (batch, place) in enumerate(parts)]

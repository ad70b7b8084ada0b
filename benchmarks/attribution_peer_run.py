"""Runs one peer library on an exported model, in an environment of its own: called by `attribution_peers.py`.

Writes scores of every example against every query and seconds, the peer's and those of a plain forward and backward of
the same examples, timed alternately in this process. A peer is timed on few and on all examples, so that what it does
once (query gradients, files, hooks) does not count against it.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import Dataset
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

Score = Callable[[Tensor], Tensor]
"""Tokens → scores [example, query] or [example, query, token]."""


def mean_losses(model: Any, tokens: Tensor) -> Tensor:
    """Mean next-token loss of every example."""
    logits = model(input_ids=tokens).logits[:, :-1]
    losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none")
    return losses.mean(1)


class Rows(Dataset):
    """Token rows as a data set of dictionaries."""

    def __init__(self, tokens: Tensor) -> None:
        self.tokens = tokens

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"input_ids": self.tokens[index]}


def bergson(model: Any, queries: Tensor, batch: int, by_token: bool) -> Score:
    """In-memory collector with a streaming scorer, all linear layers, no projection."""
    from bergson.collector.collector import CollectorComputer
    from bergson.collector.in_memory_collector import InMemoryCollector
    from bergson.config import IndexConfig
    from bergson.score.score_writer import InMemorySequenceScoreWriter, InMemoryTokenScoreWriter
    from bergson.score.scorer import Scorer
    from datasets import Dataset as Table

    model.requires_grad_(False)
    model.get_input_embeddings().requires_grad_(True)
    folder = tempfile.mkdtemp()
    Path(folder + "/run.part").mkdir()

    def collect(tokens: Tensor, tokenwise: bool, scorer: Any = None) -> Any:
        cfg = IndexConfig(
            run_path=folder + "/run", loss_reduction="mean", include_bias=True, attribute_tokens=tokenwise
        )
        rows = Table.from_dict({"input_ids": tokens.tolist(), "length": [tokens.shape[1]] * len(tokens)})
        from bergson.gradients import GradientProcessor

        collector = InMemoryCollector(
            model=model, data=rows, cfg=cfg, scorer=scorer, processor=GradientProcessor(include_bias=True)
        )
        batches = [list(range(i, min(i + batch, len(tokens)))) for i in range(0, len(tokens), batch)]
        CollectorComputer(model, rows, collector=collector, batches=batches, cfg=cfg).run_with_collector_hooks()
        return collector

    found = {name: g.float() for name, g in collect(queries, False).gradients.items()}

    def score(tokens: Tensor) -> Tensor:
        rows = Table.from_dict({"input_ids": tokens.tolist(), "length": [tokens.shape[1]] * len(tokens)})
        writer = (
            InMemoryTokenScoreWriter(rows, len(queries))
            if by_token
            else InMemorySequenceScoreWriter(len(tokens), len(queries))
        )
        scorer = Scorer(found, list(found), writer, torch.device("cpu"), torch.float32, attribute_tokens=by_token)
        collect(tokens, by_token, scorer)
        return torch.stack(writer.scores).transpose(1, 2) if by_token else writer.scores

    return score


def dattri_llm(model: Any, queries: Tensor, batch: int, by_token: bool) -> Score:
    """TracIn at one checkpoint, gradients scored as they are made."""
    from dattri_llm import REGISTER_ALL, AttributionArguments, AttributionTask, HookManagerConfig, TracInAttributor

    task = AttributionTask(lambda model, batch: mean_losses(model, batch["input_ids"]).sum(), model)

    def score(tokens: Tensor) -> Tensor:
        args = AttributionArguments(
            output_dir=tempfile.mkdtemp(), per_device_train_batch_size=batch, per_device_eval_batch_size=len(queries)
        )
        made = TracInAttributor(args, task=task).attribute(
            Rows(tokens),
            Rows(queries),
            hook_config=HookManagerConfig(linear_io=REGISTER_ALL),
            attribution_granularity="token" if by_token else "instance",
        )
        found = made.scores  # a row per example, or per example and position
        return found.view(len(tokens), -1, len(queries)).transpose(1, 2) if by_token else found

    return score


def kronfluence(model: Any, queries: Tensor, batch: int, by_token: bool) -> Score:
    """Pairwise scores with the strategy "identity": plain inner products."""
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments
    from kronfluence.task import Task

    class NextToken(Task):
        def compute_train_loss(self, batch: Any, model: Any, sample: bool = False) -> Tensor:
            return mean_losses(model, batch["input_ids"]).sum()

        def compute_measurement(self, batch: Any, model: Any) -> Tensor:
            return self.compute_train_loss(batch, model)

    task = NextToken()
    analyzer = Analyzer(
        "a", prepare_model(model, task), task, cpu=True, disable_tqdm=True, output_dir=tempfile.mkdtemp()
    )
    analyzer.fit_all_factors("f", Rows(queries), len(queries), factor_args=FactorArguments(strategy="identity"))

    def score(tokens: Tensor) -> Tensor:
        analyzer.compute_pairwise_scores(
            "s",
            "f",
            query_dataset=Rows(queries),
            train_dataset=Rows(tokens),
            per_device_query_batch_size=len(queries),
            per_device_train_batch_size=batch,
            score_args=ScoreArguments(compute_per_token_scores=by_token),
            overwrite_output_dir=True,
        )
        return analyzer.load_pairwise_scores("s")["all_modules"].transpose(0, 1)

    return score


PEERS = {"bergson": bergson, "dattri-llm": dattri_llm, "kronfluence": kronfluence}


def build(folder: Path) -> Any:
    """The exported model."""
    model = GPTNeoXForCausalLM(GPTNeoXConfig(**json.loads((folder / "config.json").read_text())))
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.eval()


def plain(model: Any, batch: int) -> Callable[[Tensor], None]:
    """A forward and backward of all examples, gradients of all parameters."""
    parameters = list(model.parameters())

    def run(tokens: Tensor) -> None:
        for part in tokens.split(batch):
            torch.autograd.grad(mean_losses(model, part).mean(), parameters)

    return run


def seconds_of(act: Callable[[Tensor], Any], tokens: Tensor) -> float:
    began = time.process_time()
    act(tokens)
    return time.process_time() - began


def main(peer: str, folder: Path, batch: int, turns: int, by_token: bool) -> None:
    """Scores once, then times `turns` times on all examples and on a quarter of them."""
    torch.set_num_threads(1)
    data = load_file(folder / "tokens.safetensors")
    tokens, few = data["tokens"], len(data["tokens"]) // 4
    floor, score = plain(build(folder), batch), PEERS[peer](build(folder), data["queries"], batch, by_token)
    scores = score(tokens)
    save_file({"scores": scores.float().contiguous()}, folder / "scores.safetensors")
    spent: dict[str, list[float]] = {"peer": [], "plain": []}
    for _ in range(turns):
        for name, act in (("peer", score), ("plain", floor)):
            spent[name].append(seconds_of(act, tokens) - seconds_of(act, tokens[:few]))
    (folder / "seconds.json").write_text(json.dumps({**spent, "examples": len(tokens) - few}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5] == "token")

"""README.md of a bundle: what it is, how it was made, what its tables mean, whose the text is, how to cite.

Its head is YAML that the library `datasets` and the Hugging Face Hub read: every table is a configuration by its name.
"""

from collections.abc import Mapping, Sequence

import yaml

from mech_pipeline import __version__
from mech_pipeline.exchange.bundle.manifest import Run
from mech_pipeline.spec.data import Corpus, Source
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.tables.all import TABLES
from mech_pipeline.store.tables.documentation import table_rows

UNKNOWN = "not stated: say whose the text is before you publish it (`mech export … --licence`)"


def licence_of(specs: Sequence[RunSpec]) -> str:
    """The licence of the training text, as far as its origin tells."""
    return "; ".join(dict.fromkeys(said for spec in specs for said in _licences(spec.corpus)))


def _licences(corpus: Corpus) -> list[str]:
    sources: Sequence[Source] = list(corpus.parts.values()) or [corpus]
    return [_licence(source) for source in sources]


def _licence(source: Source) -> str:
    if source.python_stdlib:
        return "Python's standard library: PSF License Version 2"
    if source.generated is not None:
        return f"generated language {source.generated.language}: made by this program, nobody's text"
    return f"{source.dataset or source.files}: {UNKNOWN}"


def card(
    experiment: str,
    question: str,
    runs: Sequence[Run],
    counts: Mapping[str, int],
    licence: str,
    figures: Sequence[str],
    imported: Sequence[RunSpec] = (),
    *,
    whole: bool = False,
) -> str:
    """The text of README.md.

    Args:
        counts: rows of each table that is in the bundle.
        imported: the runs whose states come from outside.
        whole: whether those states are here all the same.
    """
    named = [{"config_name": name, "data_files": f"tables/{name}.parquet"} for name in counts]
    head = {"pretty_name": f"{experiment}: a training process", "license": "other", "configs": named}
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---",
        f"# {experiment}\n\n{question}".strip(),
        _what(runs),
        *([_elsewhere(imported, whole)] if imported else []),
        _reading(counts),
        _made(experiment, licence),
        _cite(experiment, runs),
        *([f"## Figures\n\n{_list(figures)}"] if figures else []),
        f"## Tables\n\n{''.join(_table(name, count) for name, count in counts.items())}".rstrip(),
    ]
    return "\n\n".join(parts) + "\n"


def _what(runs: Sequence[Run]) -> str:
    rows = "\n".join(
        f"| `{run.run}` | {run.status} | {len(run.states)} | `{run.states[-1].chain if run.states else run.fingerprint}` |"
        for run in runs
    )
    return (
        f"{len(runs)} training runs with every kept state, the order of every batch, the place of every example in its "
        "document, and what was measured.\n\n| run | status | states | last link of the chain |\n| --- | --- | --- | --- |\n"
        + rows
    )


def _elsewhere(imported: Sequence[RunSpec], whole: bool) -> str:
    """Of runs that others trained: where their states are."""
    places = dict.fromkeys(spec.imported.place for spec in imported if spec.imported is not None)
    named = ", ".join(f"`{place}`" for place in places)
    told = (
        "They are here as well, weights and moments in fp32, as the rows of `checkpoints` name them; `specs/` says which "
        "revision each is."
        if whole
        else "**They are not in this bundle**: whoever reads it needs them there. The file under the `uri` of a row of "
        "`checkpoints` says which revision a state is, and the SHA-256 of what it must give."
    )
    return (
        f"## States from elsewhere\n\nThe states of {len(imported)} runs were trained by others and lie in {named}. "
        f"{told} Whose they are, and under which licence, their own place says."
    )


def _reading(counts: Mapping[str, int]) -> str:
    name = "mechanism_values" if "mechanism_values" in counts else next(iter(counts))
    return f"""## Reading it

None of this needs mech-pipeline:

```python
datasets.load_dataset("FOLDER", "{name}")
polars.read_parquet("FOLDER/tables/{name}.parquet")
duckdb.sql("from 'FOLDER/tables/{name}.parquet'")
safetensors.torch.load_file("FOLDER/" + uri)  # uri of a row of checkpoints: model.*, exp_avg.*, exp_avg_sq.*
```

- `tables/`: rows, one Parquet file per table. `batches` is the order: which example stood at which place of which update.
  `examples` has the document, offset and text of each; `example_documents` the spans inside packed ones.
- `blobs/`: tensors as safetensors, under the `uri` that rows name: states with both moments, token pools, gradients.
- `specs/`: what each run was asked to be, as YAML; `experiment.yaml`, if it is here, is the file that asks for all of them.
- `SHA256SUMS`: `sha256sum --check SHA256SUMS`. `bundle.json`: the same, and a hash chain over the states of each run:
  SHA-256 of `<link before>:<step>:<data_version>:<sha256>`, beginning with the run's fingerprint.

`mech import FOLDER` brings it back into a store."""


def _made(experiment: str, licence: str) -> str:
    return (
        f"## How it was made\n\nBy mech-pipeline {__version__}: `mech run` of experiment {experiment}, then `mech export`. "
        "Device, versions and git commit of each run are in table `runs`. Rows carry `input_fingerprint` (what they were "
        f"made from) and `data_version` (what they hold).\n\n## Licence of the training text\n\n{licence}"
    )


def _cite(experiment: str, runs: Sequence[Run]) -> str:
    fingerprints = ", ".join(run.fingerprint[:12] for run in runs)
    return (
        "## How to cite\n\nThe mech_pipeline authors. mech_pipeline "
        f"{__version__} (software). Bundle of experiment {experiment}, runs {fingerprints}."
    )


def _list(names: Sequence[str]) -> str:
    return "\n".join(f"- `{name}`" for name in names)


def _table(name: str, count: int) -> str:
    table = TABLES[name]
    return (
        f"### {name}\n\n{table.meaning[:1].upper()}{table.meaning[1:]}. {count:,} rows; keys "
        f"{', '.join(f'`{key}`' for key in table.keys)}.\n\n| column | type | unit | meaning |\n|---|---|---|---|\n"
        f"{table_rows(table.all_columns)}\n\n"
    )

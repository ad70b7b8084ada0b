"""What the report asks the store of neurons: what moved their weights, and whether they matter there."""

from collections.abc import Sequence

import duckdb
import polars as pl

from mech_pipeline.frames import frame

_SHOWN = 20
_TOKENS = 6


def neuron_windows(connection: duckdb.DuckDBPyConnection, runs: Sequence[str]) -> pl.DataFrame:
    """One row per run, window and part: quartiles of effective tokens, number of neurons, effects measured and significant."""
    return frame(
        connection,
        """select run, step, any_value(begin) as begin, part, count(*) as n_neurons,
            quantile_cont(effective_tokens, 0.25) as low, median(effective_tokens) as middle,
            quantile_cont(effective_tokens, 0.75) as high, min(effective_tokens) as least,
            count(effect_low) as n_measured, count(*) filter (effect_low > 0) as n_above,
            count(*) filter (effect_high < 0) as n_below, avg(effect_attributed) as attributed, avg(effect_matched) as matched,
            max(abs(imbalance)) as imbalance
        from neurons where run = any($runs::varchar[])
        group by run, step, part order by list_position($runs::varchar[], run), step, part""",
        runs=list(runs),
    )


def neuron_rows(connection: duckdb.DuckDBPyConnection, run: str, step: int, count: int = _SHOWN) -> pl.DataFrame:
    """The parts whose attributed tokens suffer most beyond matched ones, with tokens and the position that did most."""
    return frame(
        connection,
        """with chosen as (
            select * from neurons where run = $run and step = $step and effect_low is not null
            order by effect_attributed - effect_matched desc limit $count)
        select chosen.layer, chosen.neuron, chosen.part, displacement, effective_tokens,
            effect_attributed, effect_matched, effect_low, effect_high,
            (select list({'text': t.text, 'share': t.share} order by t.place) from neuron_tokens t
                where t.run = $run and t.step = $step and t.place < $tokens
                and (t.layer, t.neuron, t.part) = (chosen.layer, chosen.neuron, chosen.part)) as tokens,
            c.before, c.text, c.after
        from chosen left join neuron_contexts c
            on c.run = $run and c.step = $step and c.place = 0
            and (c.layer, c.neuron, c.part) = (chosen.layer, chosen.neuron, chosen.part)
        order by effect_attributed - effect_matched desc""",
        run=run,
        step=step,
        count=count,
        tokens=_TOKENS,
    )

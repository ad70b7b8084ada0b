"""Which examples an arm treats otherwise, as a recipe: it is followed when what it reads is there.

`choose: {by: influence, share: 0.05, do: delete}` leaves out the 5 % of the examples that were seen before the baseline
formed and had most influence on that. `like: THAT_ARM` makes a control: other examples, as many, alike in what is named.
"""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field, model_validator

from mech_pipeline.spec.stage import Stage, added

By = Literal["influence", "ledger", "loss", "gzip_ratio", "random", "sql"]
Alike = Literal["kind", "loss", "length", "token_frequency", "gzip_ratio"]
ACCOUNTS = ("influence", "ledger")
"""What a choice can go by that another stage computes for a run."""
REARRANGING = ("advance", "reorder", "replace")
"""What changes which examples updates see; everything else changes what their losses weigh."""


class Choice(Stage):
    """As it is written in an arm."""

    by: By = Field(
        "random",
        description="influence and ledger: of the arm `of`; loss: of each example where `of` formed; gzip_ratio: bytes after "
        "zlib per byte of text; random; sql: a query of your own",
    )
    sql: str | None = Field(
        None, description="gives example_id and score, highest first chosen; `$run` is the run that is chosen by"
    )
    of: str = Field("baseline", description="the arm that is chosen by, in the run of the same seed")
    pooled: bool = Field(
        False, description="by the mean rank over all seeds of that arm, the same examples for every seed"
    )
    mechanism: str | None = Field(None, description="of influence or ledger; default: the first that `of` has there")
    method: str = Field("adjoint", description="estimator of influence")
    at: Literal["formation"] | int = Field(
        "formation", description="target step: examples seen before it are chosen from; default: where `of` formed"
    )
    end: Literal["top", "bottom"] = Field("top", description="which end of the ranking")
    kinds: tuple[str, ...] = Field((), description="only examples of these kinds, such as tiled")
    share: float | None = Field(None, gt=0, lt=1, description="of the examples that are chosen from")
    count: int | None = Field(None, ge=1, description="examples, instead of a share")
    like: str | None = Field(
        None,
        description="arm to match: as many other examples, each like one of its choice; what is done and when is as there, "
        "unless said otherwise",
    )
    alike: tuple[Alike, ...] = Field(("kind", "loss", "length"), description="in what they are matched")
    do: Literal["delete", "duplicate", "weight", "delay", "advance", "reorder", "replace"] = Field(
        "delete",
        description="what is done with them; advance and reorder show them earlier, first or last in the window, and nothing "
        "else more or less often; replace shows another example, alike, in their places",
    )
    weight: float | None = Field(None, ge=0, description="for `do: weight`: of their loss in the batch's")
    until: int | None = Field(None, ge=1, description="for `do: delay`: the first update that may see them")
    earlier: int | None = added(None, "for `do: advance`: by how many updates", ge=1)
    to: Literal["first", "last"] | None = added(None, "for `do: reorder`: which end of the window they go to")
    window: tuple[int, int] | Literal["before_target", "after_target"] | None = Field(
        None, description="first and last update in which it is done, or all before or from the target step on"
    )
    outside: bool = Field(False, description="outside of the window instead of inside")
    seed: int = Field(0, ge=0, description="of random draws")

    @model_validator(mode="after")
    def _consistent(self) -> "Choice":
        for needed, given, what in (
            (self.by == "sql", self.sql is not None, "`by: sql` and `sql`"),
            (self.do == "weight", self.weight is not None, "`do: weight` and `weight`"),
            (self.do == "delay", self.until is not None, "`do: delay` and `until`"),
            (self.do == "advance", self.earlier is not None, "`do: advance` and `earlier`"),
            (self.do == "reorder", self.to is not None, "`do: reorder` and `to`"),
        ):
            if needed != given:
                raise ValueError(f"{what} go together")
        if self.like is not None and (self.share is not None or self.count is not None or self.by != "random"):
            raise ValueError("`like` says which and how many: leave `by`, `share` and `count` out")
        if self.like is None and (self.share is None) == (self.count is None):
            raise ValueError("name one of `share` (such as 0.05) and `count`")
        if self.outside and self.window is None:
            raise ValueError("`outside` needs a `window`")
        if self.do == "delay" and self.window is not None:
            raise ValueError("`do: delay` is a window of its own; leave `window` out")
        if self.do in REARRANGING and self.outside:
            raise ValueError(f"`do: {self.do}` is done inside of a window; leave `outside` out")
        if self.do in ("advance", "reorder") and self.window == "after_target":
            raise ValueError(f"`do: {self.do}` needs a window that ends: [first update, last update]")
        if isinstance(self.window, tuple) and not 0 <= self.window[0] <= self.window[1]:
            raise ValueError(f"window {list(self.window)} must be [first update ≥ 0, last update ≥ first]")
        if not isinstance(self.at, str) and self.at < 1:
            raise ValueError(f"at {self.at}: no example has been seen before the first update")
        return self


class Recipe(Choice):
    """A choice of a run, with what the rest of the experiment file says of it.

    Attributes:
        runs: by which it is chosen.
        matched: the recipe that `like` names.
    """

    runs: tuple[str, ...]
    matched: "Recipe | None" = None

    @property
    def rearranges(self) -> bool:
        """Whether it changes which examples updates see, instead of what their losses weigh."""
        return self.do in REARRANGING

    @property
    def artifact(self) -> str:
        """What training reads of it."""
        return "order" if self.rearranges else "weights"

    @property
    def matches(self) -> bool:
        """Whether it looks for other examples that are alike."""
        return self.like is not None or self.do == "replace"

    def parts(self) -> Iterator["Recipe"]:
        """This recipe and the one it matches, and so on."""
        yield self
        if self.matched is not None:
            yield from self.matched.parts()

"""What the stages of discovery take, in updates of training, where no run of the store has been through them.

    movement    updates · tokens / 512 · (12 along every update, 6.6 in pieces, 3.2 along the chord)   docs/discovery.md
    discovery   by needs: sequences looked at / (8 · batch): a forward alone takes an eighth of an update's time a sequence
    atoms       2.3 · updates

Sequences that are looked at by needs: each place twice behind another order; all at every checkpoint; without each part at
every look; and up to 48 tokens of each cluster behind another order at every checkpoint. How many clusters there will be
nobody knows: sixty are assumed. Measured runs took between half and one and a half times what that says.
"""

from mech_pipeline.spec.run import RunSpec

_MOVEMENT = {"updates": 12.0, "pieces": 6.6, "chord": 3.2}
_TOKENS = 512
_ATOMS = 2.3
_SEQUENCES_OF_AN_UPDATE = 8
_ORDERS, _LOOKS, _FOLLOWED = 2, 7, 48 * 60


def discovery_updates(spec: RunSpec) -> dict[str, float]:
    """Of each stage of discovery that a run asks for and that takes more than seconds."""
    asked, steps = spec.discovery, spec.training.steps
    found = {}
    if asked.moves:
        found["movement"] = steps * _MOVEMENT[asked.path] * asked.tokens / _TOKENS
    elif asked.tokens:
        found["discovery"] = _sequences_looked_at(spec) / (_SEQUENCES_OF_AN_UPDATE * spec.training.batch)
    if asked.atoms:
        found["atoms"] = _ATOMS * steps
    return found


def _sequences_looked_at(spec: RunSpec) -> int:
    checkpoints, count = len(spec.checkpoint_steps()), spec.discovery.tokens
    with_mlp = spec.model.family != "native" or spec.model.d_mlp is not None
    parts = spec.model.layers * (spec.model.heads + with_mlp)
    followed = min(_FOLLOWED, count * spec.data.context)
    return count * (_ORDERS * spec.data.context + checkpoints + _LOOKS * (parts + 1)) + checkpoints * followed

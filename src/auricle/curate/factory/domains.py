"""Tags → domain code: which of speech (S), music (M) and other sound (A) a clip has, and so which experts see it."""

from collections.abc import Iterable, Sequence

from auricle.curate.factory.experts import LETTERS, Expert, Fact

SILENT = "000"
LEAST = 0.3  # probability of a tag that counts


def domain_code(facts: Iterable[Fact], least: float = LEAST) -> str:
    """The code of a clip, such as ``S0A``; ``000`` where no tag is sure enough.

    Args:
        facts: of the experts that tag: ``tag`` with ``speech``, ``music`` or ``sound``.
        least: probability of a tag that counts.
    """
    tags = (fact for fact in facts if fact.name == "tag")
    found = {fact.value for fact in tags if fact.confidence is None or fact.confidence >= least}
    return "".join(letter if kind in found else "0" for kind, letter in LETTERS.items())


def route(experts: Sequence[Expert], code: str) -> list[Expert]:
    """The experts for clips of a domain."""
    return [expert for expert in experts if not expert.letters or set(expert.letters) & set(code)]

"""No option does nothing: every field of the schema is read, by the program or by another key of `conf/`."""

from pydantic import create_model

from finflow.schema import Config
from finflow.schema.fields import Schema
from finflow.schema.sections import Budget, Env, Limits

from .reading import tree_of, unread


def test_every_field_is_read() -> None:
    assert unread() == set()


def test_a_field_that_nothing_reads_is_found() -> None:
    """Also one that is called as a field of another section is."""
    budget = create_model("Budget", __base__=Budget, gamma=(int, ...))
    env = create_model("Env", __base__=Env, forgotten=(int, ...))
    root = create_model("Config", __base__=Config, budget=(budget, ...), env=(env, ...), unused=(int, ...))
    assert unread(root) == {"Budget.gamma", "Env.forgotten", "Config.unused"}


def test_the_whole_tree_is_walked() -> None:
    def below(cls: type[Schema]) -> set[type[Schema]]:
        return {cls} | {inner for sub in cls.__subclasses__() for inner in below(sub)}

    ours = {cls.__name__ for cls in below(Schema) if cls.__module__.startswith("finflow.")} - {"Schema"}
    assert {cls.__name__ for cls in tree_of(Config)} >= ours
    assert tree_of(Config)[Limits] == {"limits"}

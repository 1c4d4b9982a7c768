"""A decision card as a page of its own, and as a section of the report: words and tables, no script, no picture."""

from collections.abc import Sequence
from pathlib import Path

from finflow.explanations.card import Card
from finflow.io.files import atomic_write
from finflow.report import card_parts, card_text
from finflow.report.html import render_page

OF_CARDS = {"text": card_text, "parts": card_parts}
"""What the template of a card calls."""


def write_card(path: Path, card: Card) -> None:
    """Write the page of one card to `path`, whole or not at all; StorageError where it cannot be written."""
    atomic_write(path, render_card(card).encode())


def render_card(card: Card) -> str:
    """The page of one card as HTML text."""
    return render_page("card_page.html.j2", card=card, **OF_CARDS)


def write_index(path: Path, cards: Sequence[Card], pages: Sequence[str]) -> Path:
    """Write the page that lists several cards, with links, and return `path`; StorageError as `write_card`."""
    cards_and_pages = list(zip(cards, pages, strict=True))
    atomic_write(path, render_page("card_index.html.j2", cards=cards_and_pages, **OF_CARDS).encode())
    return path

"""Recipes of training sets: `list` shows all, `card NAME` tells of one, `build NAME` makes it."""

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console

from data_recipes.hub.build import build_hub, hub_sets
from data_recipes.hub.card import card_text, short_overlap
from data_recipes.registry import built, card_files, local_recipes
from embedtrain.config.errors import UserError, nearest
from embedtrain.show.tables import print_table

WIDTH = 160  # columns, where stdout is no terminal
COLUMNS = ("name", "task", "rows", "where", "licence", "MTEB overlap")


def show_recipes() -> None:
    """Print the tables of all recipes: of sets made from public packages, and of published ones."""
    local = [
        (name, recipe.task, *built(name), recipe.licence, recipe.overlap)
        for name, (recipe, _) in local_recipes().items()
    ]
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    print_table("Made from public packages", COLUMNS, local, console=console)
    published = []
    for name, hub in hub_sets().items():
        num_rows, state = built(name)
        where = state if num_rows else "by hand" if hub.by_hand else hub.hub_id
        published.append(
            (name, hub.task, num_rows or hub.num_rows, where, hub.licence, short_overlap(hub.overlap))
        )
    print_table(
        "Published: rows as their publishers count them, until built", COLUMNS, published, console=console
    )


def build(name: str, arguments: Sequence[str]) -> None:
    """Make one set. Raises UserError for an unknown name."""
    local, published = local_recipes(), hub_sets()
    if name in local:
        recipe, main = local[name]
        main([*recipe.arguments, *arguments])
    elif name in published:
        build_hub(published[name], arguments)
    else:
        raise UserError(f"'{name}': no recipe of this name; {nearest(name, [*local, *published])}")


def show_card(name: str) -> None:
    """Print the card of a set. Raises UserError where there is none."""
    published = hub_sets()
    if name in published:
        print(card_text(published[name]), end="")
    elif path := next((path for path in card_files(name) if path.is_file()), None):
        print(path.read_text(encoding="utf-8"), end="")
    else:
        raise UserError(f"'{name}': no card; {nearest(name, [*local_recipes(), *published])}")


def read_command() -> tuple[argparse.Namespace, list[str]]:
    """The command, and the arguments that are the recipe's own."""
    parser = argparse.ArgumentParser("python -m data_recipes", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="show every recipe")
    commands.add_parser("card", help="show a set's card").add_argument("name")
    told = "make a set; `build NAME --help` shows its arguments"
    commands.add_parser("build", help=told, add_help=False).add_argument("name")
    command, rest = parser.parse_known_args()
    if rest and command.command != "build":
        parser.error(f"unknown arguments: {' '.join(rest)}")
    return command, rest


def main() -> int:
    """Run one command; 2 after a user's mistake."""
    command, arguments = read_command()
    try:
        if command.command == "build":
            build(command.name, arguments)
        elif command.command == "card":
            show_card(command.name)
        else:
            show_recipes()
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

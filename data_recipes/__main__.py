"""`python -m data_recipes list` shows every recipe, `python -m data_recipes build NAME` makes a set."""

import argparse
import sys

from data_recipes.registry import build, built, local_recipes
from embedtrain.config.errors import UserError
from embedtrain.show.tables import print_table

COLUMNS = ("name", "task", "rows", "state", "licence", "MTEB overlap")


def show_recipes() -> None:
    """Print the table of all recipes."""
    rows = []
    for name, (recipe, _) in local_recipes().items():
        num_rows, state = built(name)
        rows.append((name, recipe.task, num_rows, state, recipe.licence, recipe.overlap))
    print_table("Local sets", COLUMNS, rows)


def read_command() -> tuple[argparse.Namespace, list[str]]:
    """The command, and the arguments that are the recipe's own."""
    parser = argparse.ArgumentParser("python -m data_recipes", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="show every recipe")
    maker = commands.add_parser(
        "build", help="make a set; `build NAME --help` shows its arguments", add_help=False
    )
    maker.add_argument("name")
    return parser.parse_known_args()


def main() -> int:
    """Run one command; 2 after a user's mistake."""
    command, arguments = read_command()
    try:
        if command.command == "build":
            build(command.name, arguments)
        else:
            show_recipes()
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

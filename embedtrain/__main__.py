"""`python -m embedtrain` is the command `embedtrain`."""

from embedtrain.cli import main

if __name__ == "__main__":
    main()

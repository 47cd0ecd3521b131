"""What the processes of a stage leave in its folder: where each is, and why one ended. No torch here.

A process that waits for another cannot ask it; it reads its file. A file is overwritten in place, so what a
stopped or killed process wrote last is there. The folder goes when the stage is done.

Some stages make files together and send no messages. There a process waits for the files of others as long as
these give signs of life, every few seconds.
"""

from embedtrain.places.failing import Failure, fail, first_failure, has_told, is_lost
from embedtrain.places.place import (
    ENDED,
    FOLDER,
    Place,
    Places,
    at,
    begin,
    describe_missing,
    end,
    here,
    meeting,
    read_places,
)
from embedtrain.places.waiting import Patience, Stalled, locked, wait_for

__all__ = [
    "ENDED",
    "FOLDER",
    "Failure",
    "Patience",
    "Place",
    "Places",
    "Stalled",
    "at",
    "begin",
    "describe_missing",
    "end",
    "fail",
    "first_failure",
    "has_told",
    "here",
    "is_lost",
    "locked",
    "meeting",
    "read_places",
    "wait_for",
]

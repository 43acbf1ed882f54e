"""What ``svco ask`` does with its arguments."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from pathlib import Path

from ...basics.dist import World
from ...basics.errors import BadSample, UserError
from ...basics.files import write_whole
from ...data.pictures import decode_image, picture_file
from ...data.schema import visible
from ...export import public_base
from ...model.subject import Subject, load_subject
from .answers import TEXT_TOKENS, Answer, Picture, answer, models_of, scored
from .page import page
from .terminal import Board, Screen


def run(arguments: Namespace) -> int:
    """Asks about every image, shows the answers as they come, and writes the page that was asked for; always 0."""
    pictures = _checked(arguments)
    subject = load_subject(
        arguments.base,
        arguments.adapter and str(arguments.adapter),
        dtype=arguments.dtype,
        attention=arguments.attention,
        quantise=arguments.quantise,
        max_text_tokens=TEXT_TOKENS,
        device=World().device,
        progress=sys.stderr.isatty(),
        other_base=arguments.other_base,
    )
    screen = Screen(sys.stdout)
    screen.say(f"{arguments.question}\n")
    found: list[tuple[Picture, dict[str, Answer]]] = []
    for number, picture in enumerate(pictures):
        other = pictures[1 - number] if len(pictures) > 1 else None
        found.append((picture, _ask(subject, picture, other, arguments, screen)))
        screen.say()
    if arguments.html:
        facts = {
            "base": public_base(subject.base).name,
            "adapter": subject.name if subject.adapter else "none",
            "precision": subject.precision,
            "asked": time.strftime("%Y-%m-%d %H:%M"),
        }
        write_whole(arguments.html, page(arguments.question, facts, found))
        screen.say(f"as a page: {arguments.html}")
    return 0


def _checked(arguments: Namespace) -> list[Picture]:
    """The images; UserError for arguments that cannot be meant, before a model is loaded."""
    if not visible(arguments.question):
        raise UserError('The question is empty. Write it in quotes, e.g. "What colour is the car?".')
    if len(arguments.images) > 2:
        raise UserError(
            f"--image is given {len(arguments.images)} times; one image, or two to be told apart, can be asked about."
        )
    if arguments.html and (arguments.html.is_dir() or not arguments.html.absolute().parent.is_dir()):
        raise UserError(f"--html {arguments.html} is a folder, or is in one that is not there. Give another file.")
    return [_picture(path) for path in arguments.images]


def _picture(path: Path) -> Picture:
    try:
        data = picture_file(path)
        return Picture(path.name, data, decode_image(data, str(path)))
    except BadSample as error:
        raise UserError(f"--image: {error}. Give a file that holds a picture, e.g. a JPEG or PNG.") from None


def _ask(
    subject: Subject, picture: Picture, other: Picture | None, arguments: Namespace, screen: Screen
) -> dict[str, Answer]:
    """Model -> its answer about ``picture``, shown as it comes."""
    models, found = models_of(subject), {}
    screen.say(picture.name)
    board = Board(screen, list(models))
    for name, being in models.items():
        try:
            with being():
                text, is_cut = answer(
                    subject,
                    picture,
                    arguments.question,
                    arguments.max_new_tokens,
                    lambda text, name=name: board.told(name, text),  # type: ignore[misc]
                )
                found[name] = scored(subject, arguments.question, text, is_cut, picture, other)
        except BadSample as error:
            raise UserError(f"The question cannot be put to this model: {error}.") from None
        board.done(name, found[name])
    return found

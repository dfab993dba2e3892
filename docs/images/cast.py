"""Makes terminal.gif: real commands in a real terminal of 80 x 36, in a folder of their own.

    python docs/images/cast.py        # needs pyte and pillow, and the font DejaVu Sans Mono

What a command prints is shown as it comes, in at most `STEPS` pictures, so that a long run does not make a long film.
"""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyte
from PIL import Image, ImageDraw, ImageFont

COLUMNS, LINES = 80, 36
CELL = (9, 18)
FONT = Path("/usr/share/fonts/truetype/dejavu")
STEPS = 8
DATABASE = "--doctor-db doctor-demo/trajectory_data.sqlite"
COMMANDS = ("pytest --doctor-demo", f"pytest {DATABASE} --doctor-fix -n 2", f"pytest {DATABASE}")
OTHERS = ("html", "metadata", "pytest_cov", "pytest_jsonreport", "randomly", "sugar", "timeout", "rerunfailures")
PALETTE = {
    "default": "#d8dee4",
    "red": "#ff7b72",
    "green": "#57c785",
    "cyan": "#56b4e9",
    "brown": "#e3c34a",
    "yellow": "#e3c34a",
    "blue": "#79b8ff",
    "magenta": "#e69ac5",
}
GROUND = "#15181c"


def played(command: str, folder: Path) -> Iterator[tuple[float, bytes]]:
    """What a command prints on a terminal, piece by piece, with the seconds since it began."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(COLUMNS), "LINES": str(LINES), "TERM": "xterm-256color"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment["PYTEST_ADDOPTS"] = " ".join(f"-p no:{each}" for each in (*OTHERS, "hypothesispytest", "cacheprovider"))
    begun = time.monotonic()
    process = subprocess.Popen(["bash", "-c", command], cwd=folder, env=environment, stdout=follower, stderr=follower)
    os.close(follower)
    while True:
        ready = select.select([leader], [], [], 0.1)[0]
        try:
            piece = os.read(leader, 65536) if ready else b""
        except OSError:
            break
        if piece:
            yield time.monotonic() - begun, piece
        elif process.poll() is not None:
            break
    process.wait()


def picture(screen: pyte.Screen) -> Image.Image:
    """The screen as it stands."""
    image = Image.new("RGB", (COLUMNS * CELL[0] + 24, LINES * CELL[1] + 24), GROUND)
    pen = ImageDraw.Draw(image)
    plain = ImageFont.truetype(FONT / "DejaVuSansMono.ttf", 14)
    bold = ImageFont.truetype(FONT / "DejaVuSansMono-Bold.ttf", 14)
    for row in range(LINES):
        for column in range(COLUMNS):
            cell = screen.buffer[row][column]
            if cell.data.strip():
                place = (12 + column * CELL[0], 12 + row * CELL[1])
                pen.text(place, cell.data, PALETTE.get(cell.fg, PALETTE["default"]), bold if cell.bold else plain)
    return image.quantize(32)


def main() -> None:
    """Film the commands."""
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    frames: list[tuple[Image.Image, int]] = []
    with tempfile.TemporaryDirectory() as name:
        for command in COMMANDS:
            stream.feed(b"\x1b[32m$\x1b[0m ")
            for end in range(0, len(command) + 1, 6):
                stream.feed(command[end : end + 6].encode())
                frames.append((picture(screen), 120))
            stream.feed(b"\r\n")
            pieces = list(played(command, Path(name)))
            shown = 0.0
            for moment, piece in pieces:
                stream.feed(piece)
                if moment - shown >= pieces[-1][0] / STEPS:
                    shown = moment
                    frames.append((picture(screen), 250))
            frames.append((picture(screen), 4000))
            stream.feed(b"\r\n")
        shutil.rmtree(Path(name) / "doctor-demo")
    images, times = zip(*frames, strict=True)
    target = Path(__file__).with_name("terminal.gif")
    images[0].save(target, save_all=True, append_images=images[1:], duration=list(times), loop=0, optimize=True)
    print(f"{target}: {len(images)} pictures, {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()

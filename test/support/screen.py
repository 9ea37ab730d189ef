"""A screen without a monitor (Xvfb), and pictures of it."""
from __future__ import annotations

import contextlib
import os
import shutil
import signal
import struct
import subprocess

import numpy as np


def missing(*programs):
    """Return the names of the programs that are not installed."""
    return [name for name in programs if not shutil.which(name)]


def picture(file):
    """Return the screen as (height, width, 3) uint8 RGB. Xvfb keeps it in a file in XWD format."""
    data = file.read_bytes()
    header = struct.unpack(">25I", data[:100])
    size, width, height, order, bits, row, colours = (header[index] for index in (0, 4, 5, 7, 11, 12, 19))
    assert bits == 32 and order == 0, "not a screen of 24 bits"
    start = size + 12 * colours
    pixels = np.frombuffer(data, np.uint8, height * row, start).reshape(height, row)[:, :4 * width].reshape(height, width, 4)
    return pixels[:, :, 2::-1]


@contextlib.contextmanager
def screen(folder, size="1200x800"):
    """Yields the environment for programs that draw on the screen, and the file of its picture; ends the screen afterwards."""
    command = ["Xvfb", "-displayfd", "1", "-screen", "0", f"{size}x24", "-fbdir", str(folder), "-nolisten", "tcp"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="ascii") as server:
        try:
            number = int(server.stdout.readline())
            drawing = {"DISPLAY": f":{number}", "LIBGL_ALWAYS_SOFTWARE": "1", "QT_QPA_PLATFORM": "xcb",
                       "XDG_RUNTIME_DIR": str(folder)}
            yield {**os.environ, **drawing}, folder / "Xvfb_screen0"
        finally:
            server.terminate()


def end(program, patience=20.0):
    """Interrupts a program, so that it unregisters from the ROS master, and kills it if it does not end."""
    program.send_signal(signal.SIGINT)
    try:
        program.wait(patience)
    except subprocess.TimeoutExpired:
        program.kill()


def share_of(pixels, colour, hue=0.06, least=0.25):
    """Return the share of pixels that have about the hue of a colour (r, g, b in 0 to 1) and some saturation."""
    import cv2

    pixels = np.ascontiguousarray(pixels)
    drawn = cv2.cvtColor(pixels.astype(np.float32) / 255.0, cv2.COLOR_RGB2HSV)
    wanted = cv2.cvtColor(np.array([[colour[:3]]], dtype=np.float32), cv2.COLOR_RGB2HSV)[0, 0, 0]
    apart = np.abs((drawn[..., 0] - wanted + 180.0) % 360.0 - 180.0)
    return float(((apart < 360.0 * hue) & (drawn[..., 1] > least)).mean())

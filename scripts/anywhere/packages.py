"""Prints the device to train on, or which packages are missing. `scripts/train_anywhere.sh` runs it first.

    packages.py [DEVICE]      # a given device is printed again
"""
import importlib.util
import sys

#: Packages that are imported on the way, also by packages that are installed without their dependencies: mujoco draws through
#: PyOpenGL, and pinocchio is built on eigenpy and hppfcl.
NEEDED = ("torch", "numpy", "scipy", "PIL", "cv2", "timm", "safetensors", "tokenizers", "yaml", "dacite", "tqdm", "pyarrow", "av",
          "mujoco", "OpenGL", "threadpoolctl", "pinocchio", "eigenpy", "hppfcl", "daqp", "jinja2")


def main() -> None:
    """Prints the device, which defaults to cuda or cpu, or exits with a sentence that names what is missing."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(f"train_anywhere: {', '.join(missing)} missing for {sys.executable}; put their wheels into the folder of "
                 "TRAIN_WHEELS (scripts/anywhere/wheels.sh fetches them for Python 3.12; those for 3.11 and 3.8 are named in "
                 "requirements/debian12/{base,vision,sim}.txt and requirements/noetic/{core,policy,vision,sim}.txt), or name "
                 "another Python by PYTHON=")
    if sys.argv[1:] and sys.argv[1]:
        print(sys.argv[1])
        return
    import torch

    print("cuda" if torch.cuda.is_available() else "cpu")


if __name__ == "__main__":
    main()

"""Says the device to train on, or which packages are missing: the first thing that `scripts/train_anywhere.sh` runs.

    packages.py [DEVICE]      # one that was named is said again
"""
import importlib.util
import sys

#: What is imported on the way, also by packages that are installed without what they ask for: mujoco draws through PyOpenGL, and
#: pinocchio stands on eigenpy and hppfcl.
NEEDED = ("torch", "numpy", "scipy", "PIL", "cv2", "timm", "safetensors", "tokenizers", "yaml", "dacite", "tqdm", "pyarrow", "av",
          "mujoco", "OpenGL", "threadpoolctl", "pinocchio", "eigenpy", "hppfcl", "daqp", "jinja2")


def main() -> None:
    """Prints the device, cuda or cpu where none was named, or ends with the sentence that names what is missing."""
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

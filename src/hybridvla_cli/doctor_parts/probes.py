"""Code that the doctor runs in its own process, as text: a broken package or graphics driver crashes only that process."""

# Runs in its own process, with the devel space first on the path: prints what the built messages were made from.
MESSAGES = """
import importlib, json, sys
sys.path.insert(0, sys.argv[1])
found = {}
for kind in ("msg", "srv"):
    module = importlib.import_module("hybridvla." + kind)
    for name, cls in vars(module).items():
        if hasattr(cls, "_md5sum") and (kind == "msg" or hasattr(cls, "_request_class")):
            request = getattr(cls, "_request_class", cls)
            found[kind + "/" + name] = [cls._md5sum, request._full_text]
print(json.dumps(found))
"""
# Runs in its own process, because a package built for another numpy may crash: prints a name before each attempt.
IMPORTS = """
import importlib, sys
for name in sys.argv[1:]:
    print("try", name, flush=True)
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        print("absent" if error.name == name else "bad", name, error, flush=True)
    except Exception as error:
        print("bad", name, type(error).__name__ + ":", " ".join(str(error).split())[:120], flush=True)
    else:
        print("good", name, flush=True)
import numpy
print("numpy", numpy.__version__, numpy.__file__)
"""
# Prints where the drivers' messages come from in the nodes' environment.
DRIVERS = """
import importlib.util, json, sys
found = {name: importlib.util.find_spec(name) for name in sys.argv[1:]}
print(json.dumps({name: list(spec.submodule_search_locations)[0] if spec else "" for name, spec in found.items()}))
"""
# A crash inside a graphics driver must not end the doctor.
RENDERING = """
import mujoco
model = mujoco.MjModel.from_xml_string(
    "<mujoco><worldbody><light pos='0 0 3'/><geom size='1'/></worldbody></mujoco>")
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
renderer = mujoco.Renderer(model, 32, 32)
renderer.update_scene(data)
assert renderer.render().max() > 0, "the picture is black"
"""

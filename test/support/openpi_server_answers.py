"""An openpi user's server: the unmodified openpi-server with a policy like those for LIBERO. It runs in that package's own
environment and prints its port. Its actions repeat what it was sent, so that a mix-up becomes visible."""
import socket

import numpy as np
from openpi_server import WebsocketPolicyServer

UNITS = ("observation/image", "observation/wrist_image")


class Repeats:
    def infer(self, obs):
        if obs["prompt"] == "crash":
            raise ZeroDivisionError("secret of the inside")
        state = obs["observation/state"]
        if state.shape != (8,) or any(obs[key].dtype != np.uint8 for key in UNITS):
            raise ValueError("not what LIBERO's clients send")
        row = [obs[UNITS[0]][0, 0, 0] / 100.0, obs[UNITS[1]][0, 0, 0] / 100.0, state[2], 0.0, 0.0, 0.5,
               -1.0 if state[6] > 0.02 else 1.0]
        return {"actions": np.tile(np.array(row, dtype=np.float32), (10, 1))}


with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
print(port, flush=True)
WebsocketPolicyServer(Repeats(), "127.0.0.1", port, metadata={"model": "a policy for LIBERO"}).serve_forever()

"""An openpi user's script with the unmodified openpi-client. It runs in that package's own environment.

usage: openpi_client_asks.py PORT KEY      prints one JSON object
"""
import json
import sys

import numpy as np
from openpi_client.websocket_client_policy import WebsocketClientPolicy

policy = WebsocketClientPolicy("127.0.0.1", int(sys.argv[1]), api_key=sys.argv[2])
images = {f"observation/{view}": np.full((48, 64, 3), 10 * (1 + number), dtype=np.uint8)
          for number, view in enumerate(("front", "wrist"))}
answer = policy.infer({**images, "observation/state": np.arange(7) / 10.0, "prompt": "put it down"})
try:
    policy.infer({"prompt": "put it down"})
    refused = ""
except RuntimeError as error:
    refused = str(error)
print(json.dumps({"metadata": policy.get_server_metadata(), "actions": answer["actions"].tolist(),
                  "timing": sorted(answer["server_timing"]), "refused": refused}))

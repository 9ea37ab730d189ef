"""What cache and drafts each save on this machine, from one run of the benchmark, beside the paper's figures."""
from __future__ import annotations

from typing import Any, Dict, Mapping

#: The paper's speeds on its GPU, Hz (Table 2 and appendix B.2).
PAPER_HZ = {"diffusion": 9.4, "full": 6.1, "diffusion_no_cache": 5.0}
NAMES = {"diffusion": "diffusion alone", "full": "both paths, tokens by drafts", "full_plain": "both paths, one pass a token",
         "diffusion_no_cache": "diffusion alone, without a cache"}


def speed_sheet(measured: Mapping[str, Any]) -> Dict[str, Any]:
    """Returns the sheet for a result of `hybridvla_core.benchmark.run`."""
    rows, bars = [], []
    for name, words in NAMES.items():
        mode = measured["modes"][name]
        hertz = 1e3 / mode["median_ms"]
        rows.append([words, f"{mode['median_ms']:.1f}", f"{mode['fastest_ms']:.1f}", f"{mode.get('processor_ms', 0.0):.1f}",
                     f"{hertz:.1f}", f"{PAPER_HZ[name]:.1f}" if name in PAPER_HZ else None])
        bars.append([words, mode["median_ms"], f"{mode['median_ms']:.1f} ms", None])
    ratios = measured["ratios"]
    theirs = PAPER_HZ["diffusion"] / PAPER_HZ["diffusion_no_cache"]
    remarks = [f"The cache makes diffusion {ratios['kv_cache_speedup']:.2f} times as fast (paper: {theirs:.2f}); of the fastest "
               f"rounds {ratios['kv_cache_speedup_of_fastest']:.2f}, of the processor's time "
               f"{ratios.get('kv_cache_speedup_of_processor', 0.0):.2f}.",
               f"Both paths take {ratios['full_over_diffusion']:.2f} times what diffusion alone takes (paper: "
               f"{PAPER_HZ['diffusion'] / PAPER_HZ['full']:.2f}); drafts make them {ratios['plain_over_full']:.2f} times as fast "
               f"as one pass a token, with {measured['passes']['mean']:.2f} passes a prediction instead of 7."]
    return {"name": "speed", "title": "Speed: cache and drafts (Table 2, appendix B.2)", "unit": "median of a prediction, ms",
            "about": f"{measured['parameters_m']:g} M parameters, {measured['dtype']}, {measured['threads']} thread(s) of "
                     f"{measured['device']}, {measured['rounds']} rounds in turning order. Predictions alone; the paper's "
                     "figures are of 7 billion parameters on an RTX 4090D. Ratios can be set beside each other, speeds cannot.",
            "head": ["", "median, ms", "fastest, ms", "processor, ms", "Hz", "paper, Hz"], "rows": rows, "bars": bars,
            "remarks": remarks, "claims": []}

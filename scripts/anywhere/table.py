"""Adds up the results of `scripts/train_anywhere.sh` into OUT/table.md: OUT, then the files of results."""
import json
import pathlib
import sys

from hybridvla_core.report.statistics import wilson

out = pathlib.Path(sys.argv[1])
counts = {}
for file in map(pathlib.Path, sys.argv[2:]):
    task, mode, _, _ = file.stem.rsplit("-", 3)
    found = json.loads(file.read_text())
    wins, episodes = counts.get((task, mode), (0, 0))
    counts[task, mode] = wins + found["successes"], episodes + found["episodes"]
lines = ["| task | mode | successes | episodes | rate | 95 % interval (Wilson) |", "|---" * 6 + "|"]
for (task, mode), (wins, episodes) in counts.items():
    low, high = wilson(wins, episodes)
    lines.append(f"| {task} | {mode} | {wins} | {episodes} | {wins / episodes:.3f} | {low:.3f} to {high:.3f} |")
for mode in sorted({mode for _, mode in counts}):
    rates = [wins / episodes for (_, other), (wins, episodes) in counts.items() if other == mode]
    lines.append(f"| mean of {len(rates)} | {mode} | | | {sum(rates) / len(rates):.3f} | |")
(out / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
print("\n".join(lines))

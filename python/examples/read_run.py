"""What a run says, read with python/maskbench: python3 python/examples/read_run.py results/quick.db"""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import maskbench  # noqa: E402

with maskbench.open(sys.argv[1] if len(sys.argv) > 1 else "results/quick.db") as db:
    for row in db.rows("v_accuracy"):
        print(f"{row['config']:16} {row['task']:20} {100 * row['score']:6.1f}  n = {row['n']}, work {row['work']:.2f}")
    for row in db.rows("v_selection", step=1)[:3]:
        first = maskbench.pages(row["pages"], row["kv_heads"])[0]
        print(f"{row['config']}, layer {row['layer']}: head 0 reads pages {first}")

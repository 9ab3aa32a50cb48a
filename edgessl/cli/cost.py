"""What ``edgessl cost`` prints for people: computed and measured figures apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgessl.cli.dry_run import STEP, duration
from edgessl.cli.show import millions, size, table

MB = 1e6
BUSY = 0.5  # load per core from which on other work disturbs
LARGE = 0.5  # share of a net's operations from which on its projector must not be forgotten
UNITS = {"H": "host", "S": "slim or only net", "L": "S on a local crop", "T": "teacher"}


def text(result: Mapping[str, Any]) -> str:
    """Return what a recipe's pretraining costs, and what the other methods would."""
    training, stored, per_image = result["training"], result["stored_images"], result["per_image"]
    rows = [
        (f"{net['role']} {net['width']}", millions(net["parameters"]), millions(net["macs"]),
         millions(net["seed_compat"]), f"{net['features']:,}", millions(net["projector_macs"]))
        for net in result["nets"]
    ]  # fmt: skip
    head = ("net, without classifier", "parameters", "MACs", "+ 4 per BatchNorm", "features",
            "projector, not counted")  # fmt: skip
    early = "".join(
        f"first {part['epochs']:,} epochs:".ljust(20)
        + f"{part['passes']} instead ({_legend(part['passes'])})\n"
        for part in result["first_epochs"]
    )
    starts = f", {training['starts']} starts" if training["starts"] > 1 else ""
    flops = training["flops"]
    taken = "what was measured stands below" if "measured" in result else "nothing was measured"
    shown = (
        f"{result['method']}, {result['encoder']} {result['width']}, stem {result['stem']}, "
        f"{result['imgsz']} px (other values: {result['values_from']})\n"
        f"computed by counting operations; {taken}\n\n"
        + table(head, rows, right="12345")
        + f"\none image and step: {result['passes']} ({_legend(result['passes'])}; forward 1, "
        f"forward and backward 3)\n                    = {millions(per_image['macs'])} MACs, "
        f"{millions(per_image['seed_compat'])} with BatchNorm\n{early}"
        f"pretraining:        {training['images']:,} images, batch {training['batch']}, "
        f"{training['epochs']:,} epochs = {training['steps']:,} steps{starts}\n"
        f"                    {flops['macs']:.2e} FLOPs, {flops['seed_compat']:.2e} with BatchNorm "
        "(2 per MAC; projector, views and loss left out)\n"
        f"images, decoded:    {size(stored['bytes'])} at {stored['side']} px, kept in "
        f"{stored['where']}\n"
    )
    if any(net["projector_macs"] > LARGE * net["macs"] for net in result["nets"]):
        shown += (
            "the projector is large beside a net of this image size: FLOPs say little about time "
            "here, --measure does\n"
        )
    if (crops := result["local_crops"]) is not None:
        shown += f"local crops:        {crops['count']} of {crops['side']} px\n"
    shown += "\n" + _compared(result)
    return shown + (_measured(result["measured"], training) if "measured" in result else "")


def _legend(passes: str) -> str:
    return ", ".join(f"{u} {name}" for u, name in UNITS.items() if u in passes.split())


def _compared(result: Mapping[str, Any]) -> str:
    """Return all methods on the same encoder and images, with the teacher that they need."""
    own, rows = result["method"], result["compared"]
    taught = any(row["teacher"] != "none" for row in rows)
    head = ["method", "width", "one image and step", "FLOPs", "ratio", "+ 4 per BatchNorm", "ratio"]
    head += ["FLOPs + teacher before", "ratio"] if taught else []
    lines = []
    for row in rows:
        line = [row["method"], ", ".join(row["widths"]), row["passes"]]
        for counting in ("macs", "seed_compat"):
            line += [f"{row['flops'][counting]:.2e}", f"{row['ratio'][counting]:.2f}"]
        if taught:
            before = (row["flops_before"] or {"macs": 0.0})["macs"]
            line.append(f"{row['flops']['macs'] + before:.2e}")
            line.append(f"{row['ratio_with_teacher']['macs']:.2f}")
        lines.append(line)
    shown = f"every method on this encoder and these images; ratios to {own}\n"
    shown += table(head, lines, right="345678")
    return shown + (_teacher(result) if taught else "")


def _teacher(result: Mapping[str, Any]) -> str:
    teacher = result["compared_teacher"]
    before = teacher["pretraining"]
    named = " (assumed; --teacher names another)" if teacher["assumed"] else ""
    known = "assumed; --teacher-epochs changes it" if before["assumed"] else "as it was"
    return (
        f"T: {teacher['name']}{named}, {millions(teacher['one_pass']['macs'])} MACs a pass\n"
        f"its own pretraining ({known}): {before['method']}, {before['epochs']:,} epochs of "
        f"{before['images']:,} images = {before['flops']['macs']:.2e} FLOPs\n"
    )


def _measured(found: Mapping[str, Any], training: Mapping[str, Any]) -> str:
    step, memory, under = found["step_s"], found["memory_mb"], found["conditions"]
    parts = ", ".join(f"{STEP[name]} {s:.3g}" for name, s in found["part_s"].items())
    gpu = "" if memory["gpu_peak"] is None else f"; {size(memory['gpu_peak'] * MB)} on the GPU"
    load, first = under["load_1min"], found["first_epochs"]
    early = ""
    if first:
        early = f"{'':20}in the first {first['epochs']} epoch(s) a step {first['step_s']:.3g} s\n"
    shown = (
        f"\nmeasured here:      {len(step['samples'])} step(s) of {under['batch']} images of "
        f"{under['imgsz']} px ({under['images']})\n"
        f"                    a step {step['median']:.3g} s (median; {step['fastest']:.3g} to "
        f"{step['slowest']:.3g}): {parts}\n{early}"
        f"                    {training['steps'] * training['starts']:,} steps are "
        f"{duration(3600 * found['run_hours'])}; monitors, saving and reading images come on top\n"
        f"                    memory at its peak {size(memory['process_peak'] * MB)}, of "
        f"{memory['peak_of']} ({size(memory['process_before'] * MB)} before them, "
        f"{under['sample']} images included){gpu}\n"
        f"                    on {under['name']}, {under['threads']} thread(s), {under['cores']} "
        f"core(s), torch {under['torch']}, load {load['before']} before, {load['after']} after\n"
    )
    if (load["before"] or 0) > BUSY * under["cores"]:
        shown += (
            "                    the machine was busy with other work: alone, a step is faster\n"
        )
    return shown


# ----------------------------------------------------------------------------------- the paper

NETS = {
    "mobilenet_v3_large": "Mob-V3", "mobilenet_v1": "Mob-V1", "efficientnet_b0": "Eff-B0",
    "resnet50": "ResNet-50", "resnet101": "ResNet-101",
}  # fmt: skip  # as the paper prints them


def paper_text(result: Mapping[str, Any]) -> str:
    """Return the paper's cost column beside ours, what is wrong in it, and a fair account."""
    rows, notes, taught = [], [], []
    for row in result["rows"]:
        verdict = "reproduced"
        if not row["reproduced"]:
            verdict = f"no ({len(notes) + 1})"
            notes.append(f"({len(notes) + 1}) {row['why']}{_readings(row)}\n")
        cells = [_value(row, counting) for counting in ("seed_compat", "macs")]
        rows.append((*_names(row), row["printed"], *cells, verdict))
        if row["teacher"]:
            told = [row[key] for key in ("charged", "fair")]
            taught.append((*_names(row), row["printed"], told[0], told[1],
                           f"{row['fair_cost']['seed_compat']:.1f}"))  # fmt: skip
    who = ("method", "encoder", "epochs", "teacher")
    claims = [
        (_short(claim["ours"]), _short(claim["theirs"]), _times(claim["claimed"]),
         *(_times(claim[key]) for key in ("of_printed_figures", "as_charged", "fair")))
        for claim in result["claims"]
    ]  # fmt: skip
    return (
        f"{result['source']}, beside what is counted here\n"
        f"{result['images']:,} images of {result['imgsz']} px; classifier of "
        f"{result['classifier']}; figures in 1e17 FLOPs, 2 per MAC\n"
        "+ 4 per BatchNorm: MACs of convolutions and Linear layers, and 4 operations per BatchNorm "
        "output; MACs: without these\n\n"
        + table((*who, "printed", "+ 4 per BatchNorm", "MACs", "verdict"), rows, right="456")
        + f"\n{result['reproduced']} of {len(rows)} rows are reproduced within "
        f"{result['tolerance']:.1%} (+ 4 per BatchNorm); the others:\n"
        + "".join(notes)
        + "\nteachers, as the column charges them and by what is trained (+ 4 per BatchNorm; "
        f"{_legend('S T')}; forward 1, forward and backward 3)\n"
        + table((*who, "printed", "charged", "fair", "fair cost"), taught, right="47")
        + "\nhow many times less it costs\n"
        + table(("this", "than", "claimed", "figures printed", "as charged", "fair"), claims,
                right="2345")
    )  # fmt: skip


def _names(row: Mapping[str, Any]) -> tuple[str, ...]:
    encoder = f"{NETS[row['encoder']]} {row['width']}"
    return row["method"], encoder, row["epochs"], NETS.get(row["teacher"], "-")


def _value(row: Mapping[str, Any], counting: str) -> str:
    return f"{row['ours'][counting]:.2f} ({row['error'][counting]:+.1%})"


def _readings(row: Mapping[str, Any]) -> str:
    """Return what other readings of a row would cost."""
    return "".join(
        f"; {reading['name']}: {_value(reading, 'seed_compat')}" for reading in row["readings"]
    )


def _short(name: str) -> str:
    for full, printed in NETS.items():
        name = name.replace(full, printed)
    return name


def _times(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.3g}x"

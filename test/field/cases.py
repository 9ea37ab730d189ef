"""Expected endings of the field cases, as far as patterns can express what their READMEs say."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

TINY = "--rate 0.5 --no-senses --checkpoint $ROOT/checkpoints/tiny"
LOOK = "python ../_tools/look.py"


@dataclass(frozen=True)
class Case:
    """One script of a case.

    command: run by bash in the folder of the case.
    wanted: patterns that the output must have.
    refused: patterns that it must not have; a traceback is never allowed.
    numbers: (pattern with one group, least, most): every match must lie between them, and there must be one.
    seconds: longest time it may take on an idle computer.
    private: whether it needs a network and mounts of its own, and so root.
    """

    name: str
    command: str
    wanted: Tuple[str, ...] = ()
    refused: Tuple[str, ...] = ()
    numbers: Tuple[Tuple[str, float, float], ...] = ()
    seconds: float = 180.0
    private: bool = False


def _model(name: str, wanted: Tuple[str, ...] = (), refused: Tuple[str, ...] = (), numbers=(), seconds: float = 600.0) -> Case:
    return Case(f"model/{name}", "bash run.sh", wanted, refused, tuple(numbers), seconds)


def _robot(name: str, command: str, wanted: Tuple[str, ...] = (), refused: Tuple[str, ...] = (), numbers=(),
           seconds: float = 120.0, private: bool = False) -> Case:
    return Case(f"robot/{name}", command, wanted, refused, tuple(numbers), seconds, private)


def _safety(name: str, wanted: Tuple[str, ...] = (), refused: Tuple[str, ...] = (), numbers=(), arguments: str = "",
            seconds: float = 300.0) -> Case:
    return Case(f"safety/{name}", f"python {name}.py {arguments}".strip(), wanted, refused, tuple(numbers), seconds)


MODEL = (
    _model("constant_channel", (r"roll, pitch: diffusion \[-?0\.0, -?0\.0\] tokens \[-?0\.0, -?0\.0\]",),
           (r"has no scale", r"set its mask to false")),
    _model("device_cuda", tuple(rf"== predict --device {name}\nhybridvla: " for name in ("cuda", "cuda:1", "gpu", "mps"))),
    _model("doctor_numpy2", (r"rc=1", r"unusable: ", r"== predict\nhybridvla: .*doctor"), (r"(?m)^ValueError",)),
    _model("input_tracebacks", (r"200-megapixel PNG\nhybridvla: ", r"3 MiB comment\nhybridvla: ", r"Latin-1 bytes\nhybridvla: ",
                                r"null\nhybridvla: "), (r"(?m)^\S*(Error|Exception): ",)),
    _model("killed", (r"SIGTERM rc=143", r"SIGHUP rc=129"), (r"OUT\.partial",), seconds=900.0),
    _model("other_savers", (r"lora_not_merged\n\[.*[Mm]erge", r"frozen_vision_left_out\n\[.*frozen",
                            r"ema_beside_model\n\[.*ema"),
           (r"(flat|ddp_module_prefix|checkpoint_wrapped)\n\[.*hybridvla: ",), numbers=((r"\[(\d+) characters\]", 1, 1200),)),
    _model("out_link", (r"left in the folder: [5-9]", r"needs root\)\n(.*\n)*?([5-9]|skipped)\n"), (r"hybridvla: ",)),
    _model("png_16bit", (r"(?s)== grey8\.png\n(dx [^\n]*)\n.*== grey16\.png\n\1\n", r"== grey_float\.tiff\n(hybridvla: |dx )"),
           (r"mean 255\.0 min 255",)),
    _model("reduced_jpeg_colours", numbers=((r"(\d+) mm apart", 0, 5),)),
    _model("relative_pt", (r"in its own folder\nT?M?P?\S*: released checkpoint|in its own folder\n.*released checkpoint",),
           (r"hybridvla: ",)),
    _model("resize_strategy_ignored", (r"hybridvla: .*(bins|512|letterbox|384)",), (r'"bins": 256',)),
)

ROBOT = (
    _robot("bag_time_zero", f"hybridvla replay time0.bag {TINY}", (r"1 message recorded before time ran",),
           (r"recording of \d{7}", r"\d{6}\.\d x real time")),
    _robot("use_sim_time_leftover", "bash live.sh", (r"heartbeat:\n.*(use_sim_time|/clock)", r"diagnostics:\n.*(name|message)"),
           seconds=240.0),
    # The case uses the camera node of another case.
    _robot("camera_type_mismatch", "sed -n \"/^cat > .*feed.py/,/^P$/p\" ../use_sim_time_leftover/live.sh | bash; bash live.sh",
           (r"(?s)compressed 100.*CompressedImage, published by /rig", r"(?s)0\.2 10 raw 100.*0\.(19|20)\d s ahead",
            r"(?s)0\.15 10 raw 100\s+proposals in 10 s: [1-9]"), (r"raw 100\s+proposals in 10 s: 0",), seconds=300.0),
    _robot("compressed_depth_and_bayer",
           f"python decode.py; {LOOK} depth_16UC1_png.bag bayer_rggb8_jpeg.bag depth_16UC1_jpeg.bag",
           refused=(r"16UC1[^\n]*ACCEPTED", r"png, 16-bit[^\n]*ACCEPTED",
               r"bayer_rggb8; \w+ compressed\s+ACCEPTED[^\n]*R-B\| 0\.0")),
    _robot("config_copy_paste", "python t_conf.py; python t_finger.py 2>&1 | tail -1", (r"as shipped +ACCEPTED",),
           (r"(?m)^(left|command|joint_names|gripper\.max)[^\n]*ACCEPTED", r"^accepted:")),
    _robot("deadman_unplugged", "bash live.sh", numbers=((r"true in (\d+) of", 0, 0),)),
    _robot("degrees_reenter", "python t_reenter.py",
           (r"joints in degrees reenter: \(False", r"degrees reenter.*(unit|degrees)", r"joints in degrees.*\n.*\n.*published 0"),
           (r"132 rad",)),
    _robot("fr3_gripper_topic", "PYTHONPATH=../_tools:$PYTHONPATH python look_fr3.py",
           (r"openings known: [1-9]", r"grasps found: \[\("),),
    _robot("gbk_instruction", f"{LOOK} gbk.bag", (r"UTF-8.*--instruction",)),
    _robot("older_own_messages", f"hybridvla replay . {TINY} --json $WORK/out/older.json", (
        r"a_oldstatus\.bag.*SafetyStatus.*MD5", r"b_oldproposal\.bag.*ActionProposal.*MD5", r"from 3 recording", r"verdict")),
    _robot("recorder_latched", "sed \"s|^folder: .*|folder: $WORK/recordings|\" rec.yaml > $WORK/rec.yaml; bash live.sh",
           (r"tf_static camera_left", r"tf_static camera_right")),
    _robot("reindexed_backup", f"hybridvla replay folder {TINY}", (r"orig\.bag",), (r"from 2 recording",)),
    _robot("second_filter_hostname", "bash live.sh", (r"first alive: yes +second alive: no",), seconds=120.0, private=True),
    _robot("split_dated", "python grouping.py",
           (r"\[\['2026-11-28-01-33-10_0\.bag', '2026-11-28-01-33-20_1\.bag'\]\]", r"namespaced camera node: fits",
            r"does a node .* live\? True")),
    _robot("two_joint_publishers", f"{LOOK} two.bag", (r"publisher|jump",), (r"0\.211",)),
    _robot("unsynced_recording", f"hybridvla replay rerecorded.bag images_without_stamp.bag {TINY}; echo ---; "
           f"hybridvla replay rerecorded.bag images_without_stamp.bag --stamps recording {TINY}",
           (r"(?s)--stamps recording.*---.*\n[1-9]\d* predictions from 2 recording",), (r"(?s)---.*0 predictions",)),
    _robot("unusable_joint_states", f"{LOOK} no_stamp.bag no_names.bag panda_names.bag; python filter.py",
           (r"stamp", r"panda_joint", r"duplicate name[^\n]*-> False", r"gripper negative[^\n]*-> False",
               r"gripper in mm[^\n]*-> False")),
    _robot("with_env_help", "$ROOT/scripts/with_env.sh hybridvla replay --help; echo status $?", (r"usage: hybridvla replay",
           r"status 0")),
)

SAFETY = (
    _safety("r01_leash_force", numbers=((r"N, ([\d.]+) times", 0.0, 1.05),)),
    _safety("r02_recovering_unwatched", numbers=((r"= (\d+) N at 400 N/m", 0.0, 21.0),),
           refused=(r"NONE: 0>.*\n.*never looked at",)),
    _safety("r03_clipped_is_at_target", (r"4\. the same with coupled: false; left moved 0\.1[67]",),
            (r"1\. [^\n]*at_target True", r"1\. [^\n]*closed True", r"2\. [^\n]*NONE: 0>")),
    _safety("r04_resume_activates", (r"state after reenter INACTIVE",), (r"resume [^\n]*\n?[^\n]*state HOLDING",
           r"moved \[?0\.[0-9]*[1-9]")),
    _safety("r04b_reenter_activates", (r"reenter: \(False|state after reenter: INACTIVE", r"moved 0\.0 m|proposal False")),
    _safety("r05_measured_clearance", numbers=((r"[23]\. .*measured_violations (\d+)", 1, 1e9),)),
    _safety("r06_driver_returns", (r"silent 20 s: .*published to right: False",), (r"after its return: [^\n]*published: True",)),
    _safety("r07_old_inference_after_resume", (r"accepted=False",), numbers=((r"went back ([\d.]+) mm", 0.0, 1.0),)),
    _safety("r08_stuck_says_moving", numbers=((r"without any reason shown: (\d+) of", 0, 0),)),
    _safety("r09_droop", (r"up moved (9\d|100)\.",)),
    _safety("r10_small", (r"TICK_OVERRUN ever shown: True", r"b\) [^\n]*: False", r"c\) [^\n]*re-activation 0\.55: 0\.0",
                          r"g\) [^\n]*close: 1\b"), (r"d\) blocked arm: at_target True", r"f\) [^\n]*NONE: 0> ''"),
            numbers=((r"e\) [^\n]*moved (\d+) mm", 0, 120),)),
    _safety("r11_lagging_states", (r"activation problem: \(False",)),
    _safety("r12_reflex_of_one", (r"mm at the nearest",)),
    _safety("r13_parallel_at_margin", numbers=((r"(?:together to .y|both \w+|apart) moved \[([\d.]+)", 0.04, 0.2),)),
    # It calls HOLDING back inside, but the way ends INACTIVE, so the sentence of each decides.
    _safety("r14_reenter_fails", (r"led back \d+ of [1-9]\d* poses", r"the arms are inside their limits"),
            (r"'(?:HOLDING|STOPPED|RECOVERING)'", r"no way back"), arguments="fr3 1 40"),
)

CASES = MODEL + ROBOT + SAFETY

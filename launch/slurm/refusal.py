"""What SLURM's words mean: a limit, a silence that passes, or a field of the preset that must change."""

import re

# How many jobs somebody may have queued; less, or later, is taken.
_LIMIT = re.compile(
    r"Submit(Job|Limit)|Invalid job array specification|unable to accept job|MaxJobCount", re.IGNORECASE
)
# What SLURM says of every limit; the line before it has the limit's name.
_POLICY, _POLICY_CODE = re.compile(r"Job violates accounting/QOS policy( \(.*?\))?"), re.compile(r"\b(QOS|Assoc)\w+")
# The controller did not answer; whether it took the array is not known.
_SILENCE = re.compile(
    r"socket timed out|unable to contact|connection (refused|timed out|reset)|zero bytes|backup controller"
    r"|communication (connection|shutdown)|temporarily unavailable|transport endpoint|connect failure"
    r"|header lengths|did not (respond|answer)",
    re.IGNORECASE,
)
_FIELDS = (
    (r"TimeLimit|WallDuration|time limit|--time ", "timeout_min"),
    (r"account", "account"),
    (r"partition", "partition"),
    (r"qos specification|invalid qos|QOSNotAllowed", "qos"),
    (r"feature|BadConstraints", "constraint"),
    (r"cpus?-per|\w+Cpu\w*Per(Job|Node)", "cpus_per_task"),
    (r"mutually exclusive.*mem|mem.*mutually exclusive|memory|Mem\w*Per(Job|Node|Limit)", "mem_gb"),
    (r"node name", "exclude"),
    (r"gres|\w+(GRES|Gpu)\w*Per(Job|Node)", "gpus_per_node, gpu_type or gres"),
    (r"reservation", "additional_parameters.reservation"),
    (r"node configuration", "cpus_per_task, mem_gb, gpus_per_node or constraint"),
)
# Why a job waits, where neither time nor other jobs will change it.
_FOR_EVER = re.compile(
    r"^(PartitionTimeLimit|PartitionNodeLimit|PartitionConfig|BadConstraints|MaxMemPerLimit|Invalid(Account|QOS)"
    r"|(Account|QOS)NotAllowed|(QOS|Association)TimeLimit|DependencyNeverSatisfied|ReservationDeleted"
    r"|(QOS|Assoc)\w+Per(Job|Node)(Limit)?|(QOS|Assoc)\w*MaxWall\w+|(QOS|Assoc)\w*Min\w+)$"
)


def is_limit(words: str) -> bool:
    """Whether fewer elements, or the same ones later, may be taken."""
    is_unnamed_policy = _POLICY.search(words) is not None and _POLICY_CODE.search(_POLICY.sub("", words)) is None
    return _LIMIT.search(words) is not None or is_unnamed_policy


def is_silence(words: str) -> bool:
    """Whether the controller did not answer, so that asking again is worth it."""
    return _SILENCE.search(words) is not None and not is_limit(words)


def is_for_ever(reason: str) -> bool:
    """Whether a pending job with this reason never starts as it is."""
    return _FOR_EVER.match(reason) is not None


def field_at_fault(words: str) -> str | None:
    """The fields of hydra.launcher that SLURM's words are about; None where they do not say."""
    if is_limit(words):
        return None
    named = (field for pattern, field in _FIELDS if re.search(pattern, _POLICY.sub("", words), re.IGNORECASE))
    return next(named, None)


def sentence(words: str) -> str:
    """SLURM's words on one line, and the field to change."""
    lines = (re.sub(r"^\w+: (error|fatal): ", "", line.strip()) for line in words.strip().splitlines())
    said = ": ".join(dict.fromkeys(line.removesuffix(".") for line in lines if line))
    field = field_at_fault(words)
    return said if field is None else f"{said}; change hydra.launcher.{field}"

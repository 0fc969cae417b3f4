"""``posterior.restrict_each=<glob>``: in a sweep, a run for every part of the network that the glob matches."""

from lambda_hat.config.job import parse_job
from lambda_hat.config.override_values import Config
from lambda_hat.config.restriction import parts
from lambda_hat.config.schema import ConfigError, Document

KEY = "restrict_each"


def one_each(config: Config, shared: Document) -> list[Config]:
    """The configs that ``config`` stands for: itself, or one for each match, with ``posterior.restrict`` set to it.

    Args:
        config: The plain config of one override set.
        shared: See :func:`lambda_hat.config.job.parse_job`.

    Raises:
        ConfigError: the glob matches nothing, ``posterior.restrict`` is set too, or the config is at fault.
    """
    posterior = config.get("posterior")
    if not isinstance(posterior, dict) or posterior.get(KEY) is None:
        return [config]
    glob, others = posterior[KEY], {key: value for key, value in posterior.items() if key != KEY}
    if not isinstance(glob, str):
        raise ConfigError([f"posterior.{KEY}: needs a glob such as blocks/*, got {glob!r}"])
    if others.get("restrict") is not None:
        raise ConfigError([f"posterior.{KEY}: sets posterior.restrict for each match; leave one of the two out"])
    job = parse_job({**config, "posterior": others}, shared)
    found = parts(glob, job.model.parameters(job.data))
    return [{**config, "posterior": {**others, "restrict": [part]}} for part in found]

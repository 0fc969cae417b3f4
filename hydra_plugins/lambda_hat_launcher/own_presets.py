"""Presets of a user's own, outside the checkout: Hydra looks for them wherever it composes."""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

from lambda_hat.config.presets import own_config_dirs


class OwnPresets(SearchPathPlugin):
    """Searches a user's own folders after conf/, so that a name which conf/ has keeps its meaning."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append those that exist."""
        for folder in own_config_dirs():
            search_path.append(provider="lambda_hat", path=f"file://{folder}")

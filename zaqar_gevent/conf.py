"""Configuration: upstream's options, our own, and the choice of the store.

An ordinary `zaqar.conf` means what it means to upstream. Where nothing names a store, the embedded
one is used.
"""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Sequence

from oslo_config import cfg
from oslo_log import log
from oslo_middleware import cors
from osprofiler import opts as profiler_options
from zaqar.common import cache
from zaqar.conf import drivers as driver_options
from zaqar.conf import opts as zaqar_options

from zaqar_gevent import options, quota_options
from zaqar_gevent.encryption import options as encryption_options
from zaqar_gevent.storage.postgresql import options as postgresql_options
from zaqar_gevent.storage.redis import options as redis_options
from zaqar_gevent.storage.sqlite import options as sqlite_options
from zaqar_gevent.storage.sqlite.connecting import sync_directory

STORE_FILE = 'zaqar.sqlite'
# As which upstream looks for its configuration.
_PROJECT, _PROGRAM = 'zaqar', 'zaqar-queues'
NOTIFIER = 'zaqar.notification.notifier'

# How oslo.config names the place of a value: `detail` is the file, or the environment variable.
_LOCATION = re.compile(r"LocationInfo\(location=.*?, detail='(?P<place>[^']*)'\)")


class ConfigurationError(Exception):
    """The configuration cannot work; the message is one line for the operator."""


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """The options of this package by group, for oslo-config-generator."""
    return [
        (options.GROUP, options.ALL_OPTS),
        *encryption_options.list_opts(),
        *quota_options.list_opts(),
        *sqlite_options.list_opts(),
        *redis_options.list_opts(),
        *postgresql_options.list_opts(),
    ]


def load(
    conf: cfg.ConfigOpts, config_files: Sequence[str] = (), config_dirs: Sequence[str] = ()
) -> cfg.ConfigOpts:
    """Read the configuration and register every option.

    config_files: the files to read; without any, those in the standard places of `zaqar.conf`.
    config_dirs: directories whose `*.conf` are read after them; without any, `zaqar.conf.d` in the
        standard places.

    Raises `ConfigurationError` for a file that is missing, unreadable or holds a bad value.
    """
    log.register_options(conf)
    try:
        named = [f'--config-file={file}' for file in config_files]
        named += [f'--config-dir={directory}' for directory in config_dirs]
        conf(args=named, project=_PROJECT, prog=_PROGRAM)
        register(conf)
        _read_every_value(conf)
        encryption_options.build_cipher(conf)
        quota_options.read(conf)
    except (cfg.Error, ValueError, OSError) as error:
        raise ConfigurationError(describe_error(error)) from None
    return conf


def describe_error(error: Exception) -> str:
    """An error in the configuration, in one line that names the file."""
    return _LOCATION.sub(r'\g<place>', ' '.join(str(error).split()))


def register(conf: cfg.ConfigOpts) -> None:
    """Register upstream's options and ours."""
    cache.register_config(conf)
    profiler_options.set_defaults(conf)
    for group, opts in _groups():
        conf.register_opts(opts, group=group)


def use_embedded_store(
    conf: cfg.ConfigOpts, state_path: pathlib.Path, *, create: bool = True
) -> None:
    """Make the SQLite file under `state_path` the store, where the configuration names none.

    create: whether the directory is made where it is missing.
    """
    if _names_a_store(conf):
        return
    uri = f'sqlite:///{state_path.absolute() / STORE_FILE}'
    for option, group in (
        ('message_store', sqlite_options.MESSAGE_GROUP),
        ('management_store', sqlite_options.MANAGEMENT_GROUP),
    ):
        conf.set_default(option, 'sqlite', group=driver_options.GROUP_NAME)
        conf.set_default('uri', uri, group=group)
    conf.set_default('message_pipeline', [NOTIFIER], group='storage')
    if create:
        _make_private(state_path)


def allow_hosts(conf: cfg.ConfigOpts, names: Sequence[str]) -> None:
    """Answer to these host names too, beside those that the configuration allows."""
    allowed = [*conf[options.GROUP].allowed_hosts, *names]
    conf.set_override('allowed_hosts', allowed, group=options.GROUP)


def allow_origins(conf: cfg.ConfigOpts, origins: Sequence[str]) -> None:
    """Serve web pages of these origins too, beside those that the configuration allows."""
    conf.register_opts(cors.CORS_OPTS, group='cors')
    if origins:
        allowed = [*(conf.cors.allowed_origin or ()), *origins]
        conf.set_override('allowed_origin', allowed, group='cors')


def take_over_notifier(conf: cfg.ConfigOpts) -> bool:
    """Whether subscribers are to be told; if so, upstream's notifier is taken out of the pipeline.

    It would read all subscriptions of the queue for each post, and tell them before the messages
    are stored.
    """
    pipeline = conf.storage.message_pipeline
    if NOTIFIER not in pipeline:
        return False
    others = [stage for stage in pipeline if stage != NOTIFIER]
    conf.set_override('message_pipeline', others, group='storage')
    return True


def default_state_path() -> pathlib.Path:
    """The directory for a program's data by the XDG Base Directory Specification."""
    home = os.environ.get('XDG_STATE_HOME') or pathlib.Path.home() / '.local' / 'state'
    return pathlib.Path(home) / 'zaqar-gevent'


def describe_store(conf: cfg.ConfigOpts) -> str:
    """The message store, for the line printed at start; without credentials."""
    name = conf.drivers.message_store
    uri = str(getattr(conf[f'drivers:message_store:{name}'], 'uri', '') or '')
    return uri if name == 'sqlite' else name


def is_set(conf: cfg.ConfigOpts, option: str, group: str) -> bool:
    """Whether somebody has set an option, in a file or in the environment."""
    location = conf.get_location(option, group)
    return location is not None and location.location not in (
        cfg.Locations.opt_default,
        cfg.Locations.set_default,
    )


def _groups() -> list[tuple[str | None, list[cfg.Opt]]]:
    return [*zaqar_options.list_opts_by_group(), *list_opts()]


def _names_a_store(conf: cfg.ConfigOpts) -> bool:
    """Whether a store was chosen, or a MongoDB given for upstream's default to connect to."""
    chosen = (
        ('message_store', driver_options.GROUP_NAME),
        ('management_store', driver_options.GROUP_NAME),
        ('uri', 'drivers:message_store:mongodb'),
        ('uri', 'drivers:management_store:mongodb'),
    )
    return any(is_set(conf, option, group) for option, group in chosen)


def _read_every_value(conf: cfg.ConfigOpts) -> None:
    """Read all values once, so that a bad one is found at start and not by a request."""
    for group, opts in _groups():
        for opt in opts:
            section = conf if group in (None, 'DEFAULT') else conf[group]
            getattr(section, opt.dest)


def _make_private(path: pathlib.Path) -> None:
    """Create the directory where it is missing, so that it outlives a power cut."""
    missing = [each for each in (path, *path.parents) if not each.exists()]
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for created in missing:
            sync_directory(created.parent)
    except OSError as error:
        raise ConfigurationError(
            f'The state directory {path} cannot be created: {error.strerror}'
        ) from None

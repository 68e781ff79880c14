"""Clouds as OpenStack's clients know them: clouds.yaml, and the environment variables `OS_*`."""

from __future__ import annotations

from zaqar_gevent.client.credentials import SessionToken


def session_of(name: str | None) -> SessionToken:
    """The session of a cloud; without a name, of the one that `OS_CLOUD` or `OS_*` say.

    Raises ValueError if there is no such cloud, and ImportError without openstacksdk.
    """
    try:
        from openstack.config import OpenStackConfig
        from openstack.exceptions import ConfigException
    except ModuleNotFoundError as error:
        raise ImportError(
            "clouds.yaml and OS_* are read by openstacksdk, of the extra 'cloud': pip install "
            'openstacksdk'
        ) from error
    try:
        region = OpenStackConfig().get_one(cloud=name)
        session = region.get_session()
    except ConfigException as error:
        raise ValueError(f'The cloud {name or "of OS_*"!r} cannot be used: {error}') from error
    interface = region.get_interface('messaging')
    if isinstance(interface, list):
        interface = interface[0]
    return SessionToken(session, region.get_region_name(), interface)

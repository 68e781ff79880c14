"""What these tests need besides Python: Node.js, npm, Chromium, curl and jq.

`python -m tests.browser.provisions` installs from Debian's packages what is missing, where it may,
and says what to install where it may not.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

# By the package that has it: the names it may have.
NEEDED = {
    'nodejs': ('node', 'nodejs'),
    'npm': ('npm',),
    'curl': ('curl',),
    'jq': ('jq',),
    'chromium': ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'),
}
SECONDS = 600


def missing() -> list[str]:
    """The packages that are missing."""
    return [name for name, commands in NEEDED.items() if not any(map(shutil.which, commands))]


def install(packages: list[str]) -> None:
    """Install packages of Debian."""
    quiet = {**os.environ, 'DEBIAN_FRONTEND': 'noninteractive'}
    for arguments in (
        ['update', '--quiet=2'],
        ['install', '--quiet=2', '--yes', '--no-install-recommends', *packages],
    ):
        subprocess.run(['apt-get', *arguments], env=quiet, check=True, timeout=SECONDS)


def main() -> None:
    """Have what is needed, or end with a message."""
    packages = missing()
    if packages and os.geteuid() == 0 and shutil.which('apt-get'):
        install(packages)
        packages = missing()
    if packages:
        sys.exit(f'The tests of the browser need {", ".join(packages)}; install them first.')


if __name__ == '__main__':
    main()

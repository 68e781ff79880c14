"""What the subcommands of `zaqar-gevent` show to people."""

from __future__ import annotations

import pathlib
import re
import subprocess

from tests.client.commands import Shell
from tests.server_process import ServerProcess

ESCAPES = re.compile(r'\x1b\[[0-9;?]*[A-Za-z]')


def shown(shell: Shell, *arguments: str) -> list[str]:
    """The lines that a command writes to a terminal, without colours."""
    terminal = shell.on_terminal(*arguments)
    assert terminal.finish() == 0
    return ESCAPES.sub('', terminal.shown).splitlines()


def test_a_post_says_how_many(shell: Shell) -> None:
    assert shown(shell, 'post', 'orders', '1', '2') == ['2 posted.']


def test_messages_are_lines_with_their_age(shell: Shell) -> None:
    [first, second] = shell.records('post', 'orders', '{"sku": "é"}', '2')
    shell.records('claim', 'orders', '--limit', '1')
    lines = shown(shell, 'list', 'orders')
    assert re.fullmatch(rf'{first["id"]} +\d+s claimed  {{"sku": "é"}}', lines[0])
    assert re.fullmatch(rf'{second["id"]} +\d+s  2', lines[1])


def test_a_line_is_cut_to_the_width_of_the_terminal(shell: Shell) -> None:
    shell.records('post', 'orders', 'x' * 500)
    [line] = shown(shell, 'list', 'orders')
    assert len(line) == 100
    assert line.endswith('x…')


def test_nothing_in_a_message_reaches_the_terminal_as_a_command(shell: Shell) -> None:
    shell.records('post', 'orders', '\x1b[2Jgone\x07\x9b2J\r\nnext')
    terminal = shell.on_terminal('list', 'orders')
    assert terminal.finish() == 0
    [line] = terminal.shown.splitlines()
    assert line.isprintable()
    assert 'gone' in line
    assert 'next' in line


def test_json_may_be_had_on_a_terminal(shell: Shell) -> None:
    shell.records('post', 'orders', '1')
    [line] = shown(shell, 'list', 'orders', '--json')
    assert line.startswith('{"id": ')


def test_counts_are_a_table(shell: Shell) -> None:
    shell.records('post', 'orders', '1', '2', '3')
    shell.records('claim', 'orders', '--limit', '1')
    lines = [line.split() for line in shown(shell, 'stats') if line.strip()]
    assert lines[0] == ['queue', 'free', 'claimed', 'total']
    assert lines[-1] == ['orders', '2', '1', '3']


def test_a_watched_table_is_renewed(shell: Shell) -> None:
    shell.records('post', 'orders', '1')
    terminal = shell.on_terminal('stats', '--watch', '0.2')
    terminal.read_until(lambda text: re.search(r'orders +1 +0 +1', text) is not None)
    shell.records('post', 'orders', '2')
    terminal.read_until(lambda text: re.search(r'orders +2 +0 +2 +\+\d', text) is not None)
    assert terminal.interrupt() == 130
    assert 'change/s' in terminal.shown


def test_a_file_is_posted_with_a_bar(shell: Shell, tmp_path: pathlib.Path) -> None:
    file = tmp_path / 'bodies'
    file.write_text('\n'.join(f'{{"n": {number}}}' for number in range(5000)))
    terminal = shell.on_terminal('post', 'orders', '--file', str(file))
    assert terminal.finish() == 0
    plain = ESCAPES.sub('', terminal.shown)
    assert re.search(r'\d+ posted .*━.* \d+%', plain)
    assert plain.splitlines()[-1].endswith('5000 posted.')
    [counted] = shell.records('stats', 'orders')
    assert counted['total'] == 5000


def test_a_bar_does_not_get_into_what_goes_into_a_pipe(
    shell: Shell, tmp_path: pathlib.Path
) -> None:
    file = tmp_path / 'bodies'
    file.write_text('1\n2\n')
    terminal = shell.on_terminal('post', 'orders', '--file', str(file), stdout=subprocess.PIPE)
    assert terminal.process.stdout is not None
    lines = terminal.process.stdout.read().decode().splitlines()
    assert terminal.finish() == 0
    assert [line[:7] for line in lines] == ['{"id": '] * 2


def test_what_is_typed_is_posted_line_by_line(shell: Shell) -> None:
    shell.records('queue', 'create', 'orders')
    terminal = shell.on_terminal('post', 'orders')
    terminal.type('one\n')
    shell.records('tail', 'orders', '--from-start', '--limit', '1')
    terminal.type('\x04')
    assert terminal.finish() == 0
    assert terminal.shown.splitlines()[-1] == '1 posted.'


def test_a_ping_says_how_the_server_was_reached(shell: Shell, server: ServerProcess) -> None:
    [line] = shown(shell, 'ping')
    answered = re.escape(f'{server.url} answers in ')
    way = r'\(zaqar_gevent/[\d.]+, websocket, zaqar\.v2, msgpack\)'
    assert re.fullmatch(rf'{answered}\d+\.\d ms {way}', line)


def test_a_ping_is_not_cut(server: ServerProcess) -> None:
    narrow = Shell(server.url, 'demo', COLUMNS='40')
    [line] = shown(narrow, 'ping')
    assert line.endswith('zaqar.v2, msgpack)')


def test_whoever_follows_is_told_how_to_end_it(shell: Shell) -> None:
    shell.records('queue', 'create', 'orders')
    terminal = shell.on_terminal('tail', 'orders')
    terminal.read_until(lambda text: 'Following orders' in text)
    shell.records('post', 'orders', '"hello"')
    terminal.read_until(lambda text: '"hello"' in text)
    assert terminal.interrupt() == 130
